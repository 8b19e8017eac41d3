/** In the order of their weight. Apart from the schema, so that `--help` need not load it. */
export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
