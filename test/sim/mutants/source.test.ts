import { describe, expect, it } from 'vitest';
import { bodyOf, declarationOf, occurrencesOf, type Range } from './source.ts';

const SOURCE = `const LIMITS = {
  small: 1,
};

class Store {
  readonly #done = (error: Error | null) => {
    this.#close(error);
  };

  async open({
    path,
  }: {
    path: string;
  }): Promise<void> {
    // The file first.
    await write(
      path,
      'x',
    );
    this.sync(path);
  }

  sync(path: string): void {
    if (path === '') return;
    flush(path);
  }
}

export function flush(path: string): void {
  if (path === '') return;
}
`;

const whole: Range = { from: 0, to: SOURCE.length };
const textOf = ({ from, to }: Range) => SOURCE.slice(from, to);

describe('the places where mutants change the source', () => {
  it('are found whatever their white space, comments and trailing commas', () => {
    const places = occurrencesOf(`await write(path, 'x'); this.sync(path);`, SOURCE, whole);
    expect(places.map(textOf)).toEqual([`await write(\n      path,\n      'x',\n    );\n    this.sync(path);`]);
  });

  it('consist of whole words', () => {
    expect(occurrencesOf('lush(path)', SOURCE, whole)).toEqual([]);
  });

  it('are searched for in one function', () => {
    const guard = `if (path === '') return;`;
    expect(occurrencesOf(guard, SOURCE, whole)).toHaveLength(2);
    expect(occurrencesOf(guard, SOURCE, declarationOf('sync', SOURCE))).toHaveLength(1);
    expect(occurrencesOf(guard, SOURCE, declarationOf('open', SOURCE))).toHaveLength(0);
  });

  it.each([
    ['LIMITS', 'const LIMITS = {', '};'],
    ['#done', '#done = (', '};'],
    ['open', 'async open({', '}'],
    ['sync', 'sync(path: string)', '}'],
    ['flush', 'export function flush', '}'],
  ])('include the declaration of %s, and not its calls', (name, start, end) => {
    const text = textOf(declarationOf(name, SOURCE));
    expect(text.replace('readonly ', '').startsWith(start)).toBe(true);
    expect(text.endsWith(`\n${name === 'open' || name === 'sync' || name === '#done' ? '  ' : ''}${end}`)).toBe(true);
  });

  it('include the body of a function', () => {
    expect(textOf(bodyOf(declarationOf('flush', SOURCE), SOURCE)).trim()).toBe(`if (path === '') return;`);
    expect(textOf(bodyOf(declarationOf('open', SOURCE), SOURCE)).trim()).toMatch(/^\/\/ The file[\s\S]*sync\(path\);$/);
  });

  it('are not guessed', () => {
    expect(() => declarationOf('close', SOURCE)).toThrow('close is declared 0 times');
    const twice = `${SOURCE}${SOURCE}`;
    expect(() => declarationOf('sync', twice)).toThrow('sync is declared 2 times');
  });
});
