/** What a request asks for, after the parser has dealt with everything that its text alone decides. */
export const Command = {
  /** Needs no store: `RequestParser.reply` is the whole answer (errors, VERSION, MN, …). */
  reply: 0,
  set: 1,
  add: 2,
  replace: 3,
  append: 4,
  prepend: 5,
  cas: 6,
  delete: 7,
  incr: 8,
  decr: 9,
  touch: 10,
  gat: 11,
  gats: 12,
  flushAll: 13,
  get: 14,
  gets: 15,
  /** `set` of more than an item may hold: the old value has to go, and the answer is OBJECT_TOO_LARGE. */
  setTooLarge: 16,
  /** `RequestParser.subject` says which. */
  stats: 17,
  listKeys: 18,
  /** Close after the earlier replies. */
  quit: 19,
  /** Not a client of ours: close without a word. */
  hangUp: 20,
  /** The meta commands: `RequestParser.meta` holds what they ask. mg without T may have to write all the same. */
  metaGet: 21,
  /** mg with T. */
  metaTouch: 22,
  metaSet: 23,
  metaDelete: 24,
  metaArithmetic: 25,
  /** me */
  metaDebug: 26,
  /** ms of more than an item may hold: as setTooLarge. */
  metaSetTooLarge: 27,
  /** From here on the connection gets the changes that are applied, and is listened to no more. */
  watch: 28,
} as const;
export type Command = (typeof Command)[keyof typeof Command];
