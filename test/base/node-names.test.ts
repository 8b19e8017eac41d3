import { describe, expect, it } from 'vitest';
import { isNodeCertificate } from '../../src/base/node-names.ts';

describe('a certificate', () => {
  it.each([
    ['URI:raftkv://demo/node/1', true],
    ['DNS:localhost, URI:raftkv://demo/node/1, IP Address:127.0.0.1', true],
    ['URI:raftkv://demo/node/11', false],
    ['URI:raftkv://Demo/node/1', false],
    ['DNS:raftkv://demo/node/1', false],
    // As a runtime that does not escape the commas of a name would print it.
    ['DNS:"a, URI:raftkv://demo/node/1, b"', false],
    ['', false],
    [undefined, false],
  ])('with the names %j is that of node 1 of demo: %s', (names, expected) => {
    expect(isNodeCertificate(names, 'demo', 1)).toBe(expected);
  });
});
