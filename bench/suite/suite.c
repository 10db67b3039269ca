/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The suite of the rewrite bench: five small programs that stress what rewriting could slow down. Each runs `turns`
 * times and returns a checksum, which has to come out the same with and without Xenolith.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PUBLIC(name) __attribute__((export_name(name)))

static uint32_t seed;

static uint32_t next_random(void) {
  seed = seed * 1664525u + 1013904223u;
  return seed >> 8;
}

/* compute: products of matrices of doubles. */
#define SIDE 160

static double left[SIDE][SIDE], right[SIDE][SIDE], product[SIDE][SIDE];

PUBLIC("compute") uint32_t compute(uint32_t turns) {
  for (int row = 0; row < SIDE; row++)
    for (int column = 0; column < SIDE; column++) {
      left[row][column] = (row * 7 + column) % 31 / 31.0;
      right[row][column] = (row + column * 5) % 29 / 29.0;
    }
  for (uint32_t turn = 0; turn < turns; turn++)
    for (int row = 0; row < SIDE; row++)
      for (int column = 0; column < SIDE; column++) {
        double sum = turn;
        for (int inner = 0; inner < SIDE; inner++) sum += left[row][inner] * right[inner][column];
        product[row][column] = sum;
      }
  return (uint32_t)(product[SIDE / 2][SIDE / 3] * 1000);
}

/* tree: a treap with insertions and removals, nodes from malloc. */
struct node {
  struct node *less, *more;
  uint32_t key, priority;
};

static struct node *insert(struct node *node, uint32_t key) {
  if (node == NULL) {
    struct node *fresh = malloc(sizeof *fresh);
    *fresh = (struct node){.key = key, .priority = next_random()};
    return fresh;
  }
  if (key == node->key) return node;
  struct node **side = key < node->key ? &node->less : &node->more;
  *side = insert(*side, key);
  struct node *child = *side;
  if (child->priority <= node->priority) return node;
  if (key < node->key) {
    node->less = child->more;
    child->more = node;
  } else {
    node->more = child->less;
    child->less = node;
  }
  return child;
}

static uint32_t count_and_free(struct node *node) {
  if (node == NULL) return 0;
  uint32_t count = 1 + count_and_free(node->less) + count_and_free(node->more);
  free(node);
  return count;
}

PUBLIC("tree") uint32_t tree(uint32_t turns) {
  uint32_t count = 0;
  seed = 1;
  for (uint32_t turn = 0; turn < turns; turn++) {
    struct node *root = NULL;
    for (int key = 0; key < 50000; key++) root = insert(root, next_random());
    count += count_and_free(root);
  }
  return count;
}

/* sort: qsort through a comparison that is called indirectly. */
#define WORDS 200000

static uint32_t words[WORDS];

static int compare(const void *a, const void *b) {
  uint32_t first = *(const uint32_t *)a, second = *(const uint32_t *)b;
  return (first > second) - (first < second);
}

PUBLIC("sort") uint32_t sort(uint32_t turns) {
  uint32_t sum = 0;
  seed = 2;
  for (uint32_t turn = 0; turn < turns; turn++) {
    for (int word = 0; word < WORDS; word++) words[word] = next_random();
    qsort(words, WORDS, sizeof words[0], compare);
    sum += words[WORDS / 2];
  }
  return sum;
}

/* malloc: blocks of many sizes, filled, copied and freed in another order. */
#define BLOCKS 4096

static char *blocks[BLOCKS];
static uint32_t sizes[BLOCKS];

PUBLIC("allocate") uint32_t allocate(uint32_t turns) {
  uint32_t sum = 0;
  seed = 3;
  memset(blocks, 0, sizeof blocks);
  for (uint32_t turn = 0; turn < turns * 100000; turn++) {
    uint32_t at = next_random() % BLOCKS, from = next_random() % BLOCKS;
    uint32_t size = 8 + (next_random() & (next_random() % 16 == 0 ? 4095 : 255));
    free(blocks[at]);
    blocks[at] = malloc(size);
    memset(blocks[at], (int)turn, size);
    sizes[at] = size;
    if (blocks[from] != NULL) memcpy(blocks[at], blocks[from], size < sizes[from] ? size : sizes[from]);
    sum += (unsigned char)blocks[at][size / 2];
  }
  for (int at = 0; at < BLOCKS; at++) free(blocks[at]);
  return sum;
}

/* interpret: a register machine that runs a sieve. */
enum { SET, ADD, LOAD, STORE, LESS, JUMP_IF, JUMP_UNLESS, MOVE, STOP };

struct instruction {
  uint8_t operation, target, first, second;
  int32_t number;
};

#define SIEVE 200000

static uint32_t cells[SIEVE];

static const struct instruction program[] = {
    /* r0 = i, r1 = limit, r2 = cell, r3 = j, r4 = primes, r5 = 1, r6 = test */
    {SET, 0, 0, 0, 2},        {SET, 1, 0, 0, SIEVE},  {SET, 4, 0, 0, 0},       {SET, 5, 0, 0, 1},
    {LOAD, 2, 0, 0, 0},       {JUMP_IF, 0, 2, 0, 12}, {ADD, 4, 4, 5, 0},       {ADD, 3, 0, 0, 0},
    {LESS, 6, 3, 1, 0},       {JUMP_UNLESS, 0, 6, 0, 12}, {STORE, 5, 3, 0, 0}, {ADD, 3, 3, 0, 8},
    {ADD, 0, 0, 5, 0},        {LESS, 6, 0, 1, 0},     {JUMP_IF, 0, 6, 0, 4},   {STOP, 0, 0, 0, 0},
};

static uint32_t execute(void) {
  uint32_t registers[8] = {0};
  for (uint32_t at = 0;;) {
    const struct instruction *now = &program[at++];
    switch (now->operation) {
      case SET: registers[now->target] = (uint32_t)now->number; break;
      case ADD:
        registers[now->target] = registers[now->first] + registers[now->second];
        if (now->number != 0) at = (uint32_t)now->number;
        break;
      case LOAD: registers[now->target] = cells[registers[now->first]]; break;
      case STORE: cells[registers[now->first]] = registers[now->target]; break;
      case LESS: registers[now->target] = registers[now->first] < registers[now->second]; break;
      case JUMP_IF:
        if (registers[now->first] != 0) at = (uint32_t)now->number;
        break;
      case JUMP_UNLESS:
        if (registers[now->first] == 0) at = (uint32_t)now->number;
        break;
      case MOVE: registers[now->target] = registers[now->first]; break;
      default: return registers[4];
    }
  }
}

PUBLIC("interpret") uint32_t interpret(uint32_t turns) {
  uint32_t primes = 0;
  for (uint32_t turn = 0; turn < turns; turn++) {
    memset(cells, 0, sizeof cells);
    primes += execute();
  }
  return primes;
}
