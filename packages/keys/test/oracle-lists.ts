/** The lists of the kernel and of the library, so that they can be compared. */

/** What is the same in both lists of keys. The count of references is not: the kernel's includes what is not yet freed. */
const KEY_LINE = /^(?<serial>[0-9a-f]{8}) (?<flags>\S{7}) +(?<usage>\d+) +(?<time>\S+) (?<rest>.*)$/;

/** Serial numbers in the payload of a keyring. */
export const serials = (bytes: Buffer, size: number): readonly number[] =>
  Array.from({ length: size / 4 }, (_, index) => bytes.readInt32LE(4 * index));

/** What a line says of a key. */
export interface KeyLine {
  readonly text: string;
  /** What is left of its time as far as it is shown; of less than two minutes. */
  readonly seconds: number;
}

/** The lines of /proc/keys, by serial. */
export const linesBySerial = (text: string): Map<number, KeyLine> => {
  const lines = new Map<number, KeyLine>();
  for (const line of text.split("\n")) {
    const found = KEY_LINE.exec(line)?.groups;
    if (found === undefined) continue;
    const time = found["time"]!;
    const isShort = /^\d+s$|^1m$/.test(time);
    const seconds = isShort ? Number.parseInt(time, 10) * (time.endsWith("m") ? 60 : 1) : 0;
    const rest = `${found["flags"]} ${isShort ? "soon" : time} ${found["rest"]}`;
    lines.set(Number.parseInt(found["serial"]!, 16), { text: rest, seconds });
  }
  return lines;
};

/** The lines of /proc/key-users, by user. */
export const usersIn = (text: string): Map<number, string> => {
  const users = new Map<number, string>();
  for (const line of text.split("\n")) {
    const found = /^ *(\d+): +(\d+) (.*)$/.exec(line);
    if (found !== null) users.set(Number(found[1]), `${found[2]} ${found[3]}`);
  }
  return users;
};
