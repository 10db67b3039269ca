/* SPDX-License-Identifier: Apache-2.0 */
/* Console output through console_io, and the small printf. */
#include <stdarg.h>
#include <xenolith/guest.h>

#define LINE_BYTES_MAX 1024

int xen_console_write(const char *text, size_t length) {
  return HYPERVISOR_console_io(CONSOLEIO_write, (unsigned int)length, text);
}

struct line {
  char bytes[LINE_BYTES_MAX];
  size_t length;
};

static void put(struct line *line, char byte) {
  if (line->length < LINE_BYTES_MAX) line->bytes[line->length++] = byte;
}

static void put_padded(struct line *line, const char *digits, size_t length, unsigned int width, char fill) {
  for (size_t i = length; i < width; i++) put(line, fill);
  for (size_t i = 0; i < length; i++) put(line, digits[i]);
}

static void put_number(struct line *line, uint64_t value, unsigned int base, unsigned int width, char fill) {
  char digits[20];
  size_t at = sizeof digits;
  do {
    digits[--at] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value != 0);
  put_padded(line, digits + at, sizeof digits - at, width, fill);
}

static void put_signed(struct line *line, int64_t value, unsigned int width, char fill) {
  uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
  if (value < 0) put(line, '-');
  put_number(line, magnitude, 10, width, fill);
}

static void put_string(struct line *line, const char *text, unsigned int width) {
  size_t length = 0;
  if (text == NULL) text = "(null)";
  while (text[length] != 0) length++;
  put_padded(line, text, length, width, ' ');
}

/* One conversion; `format` points behind the '%'. Returns where the text goes on. */
static const char *put_conversion(struct line *line, const char *format, va_list *arguments) {
  char fill = ' ';
  unsigned int width = 0, longs = 0;
  if (*format == '0') fill = *format++;
  while (*format >= '0' && *format <= '9') width = width * 10 + (unsigned int)(*format++ - '0');
  while (*format == 'l' || *format == 'z') longs += *format++ == 'l';
  switch (*format) {
    case 'd':
    case 'i': {
      int64_t value = longs > 1 ? va_arg(*arguments, long long) : va_arg(*arguments, int);
      put_signed(line, value, width, fill);
      break;
    }
    case 'u':
    case 'x': {
      uint64_t value = longs > 1 ? va_arg(*arguments, unsigned long long) : va_arg(*arguments, unsigned int);
      put_number(line, value, *format == 'x' ? 16 : 10, width, fill);
      break;
    }
    case 'p': put_number(line, (uintptr_t)va_arg(*arguments, void *), 16, 8, '0'); break;
    case 'c': put(line, (char)va_arg(*arguments, int)); break;
    case 's': put_string(line, va_arg(*arguments, const char *), width); break;
    case 0: return format;
    default: put(line, *format); break;
  }
  return format + 1;
}

static void put_format(struct line *line, const char *format, va_list *arguments) {
  line->length = 0;
  while (*format != 0) {
    if (*format == '%') format = put_conversion(line, format + 1, arguments);
    else put(line, *format++);
  }
}

int xen_printk(const char *format, ...) {
  struct line line;
  va_list arguments;
  va_start(arguments, format);
  put_format(&line, format, &arguments);
  va_end(arguments);
  return xen_console_write(line.bytes, line.length);
}

int xen_snprintf(char *to, size_t size, const char *format, ...) {
  struct line line;
  va_list arguments;
  va_start(arguments, format);
  put_format(&line, format, &arguments);
  va_end(arguments);
  size_t copied = line.length < size ? line.length : size - 1;
  if (size > 0) {
    __builtin_memcpy(to, line.bytes, copied);
    to[copied] = 0;
  }
  return (int)line.length;
}
