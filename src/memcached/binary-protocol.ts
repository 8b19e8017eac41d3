/** What a request and a response of memcached's binary protocol begin with. */
const REQUEST_MAGIC = 0x80;
const RESPONSE_MAGIC = 0x81;

/**
 * Whether a connection whose first byte this is speaks the binary protocol, which is not served here. Its requests
 * hold no line ends to wait for. Later in a connection these bytes are as good as any other: they begin a wrong line.
 */
export function beginsBinary(firstByte: number | undefined): boolean {
  return firstByte === REQUEST_MAGIC || firstByte === RESPONSE_MAGIC;
}
