import {
  type MemcachedInput,
  type MemcachedOutput,
  memcachedModel,
} from '../support/linearizability/memcached-model.ts';
import type { Random } from '../support/random.ts';
import type { History } from './history.ts';
import type { Plan } from './plan.ts';
import type { SimNode } from './processes.ts';
import { isRefused, isWithoutOutcome, type Reply, ReplyReader } from './replies.ts';
import { bytesOf, drawFor, drawRequest, type Habits, type Request } from './requests.ts';
import type { NodeSocket } from './socket.ts';
import type { World } from './world.ts';

/**
 * Clients that speak bytes, each in a closed loop: connect to a node, send a burst of requests, wait for the replies,
 * think. When a node dies or takes too long they turn to the next one. All that they saw goes into one history.
 */

interface Pending {
  readonly request: Request;
  readonly call: number;
}

/** Of a beat, in worlds where clients are busy together. */
const BUSY_SHARE = 0.2;

export class Client {
  readonly id: number;
  #finishing = false;
  /** Requests answered by the server, and not by an error. */
  served = 0;
  readonly #world: World;
  readonly #plan: Plan;
  readonly #random: Random;
  readonly #nodes: readonly SimNode[];
  readonly #history: History;
  readonly #habits: Habits;
  #nodeAt: number;
  #socket: NodeSocket | null = null;
  #reader = new ReplyReader();
  #pending: Pending[] = [];
  /** Which burst this is: what belongs to an earlier one is over. */
  #burst = 0;
  #names = 0;
  readonly #uniques = new Map<string, number>();
  /** A key of its own, whose every reply is known in advance; a new one after each outcome that is not. */
  #ownKey = '';
  #ownState = memcachedModel.init();

  constructor(
    id: number,
    world: World,
    plan: Plan,
    random: Random,
    nodes: readonly SimNode[],
    history: History,
    flushes: boolean,
  ) {
    this.id = id;
    this.#world = world;
    this.#plan = plan;
    this.#random = random;
    this.#nodes = nodes;
    this.#history = history;
    this.#habits = { keys: plan.keys, flushes, keyNamed: (place) => history.keyNamed(place) };
    this.#nodeAt = id % nodes.length;
    this.#takeNewOwnKey();
  }

  /** Sends nothing more; what is under way may still be answered. */
  finish(): void {
    this.#finishing = true;
  }

  /** What was not answered by now never will be, as far as the history goes. */
  end(): void {
    this.#giveUp('ends');
  }

  begin(): void {
    this.#soon();
  }

  #soon(): void {
    const burst = ++this.#burst;
    this.#world.after(this.#thinkMs(), () => {
      if (burst === this.#burst) this.#send();
    });
  }

  #thinkMs(): number {
    const { thinkMs, rhythmMs } = this.#plan;
    if (rhythmMs === 0) return this.#random.skewed(0, thinkMs * 4);
    const delayMs = this.#random.skewed(0, thinkMs * BUSY_SHARE * 4);
    const intoBeat = (this.#world.nowMs + delayMs) % rhythmMs;
    return intoBeat < rhythmMs * BUSY_SHARE ? delayMs : delayMs + rhythmMs - intoBeat;
  }

  #send(): void {
    if (this.#finishing || this.#history.length >= this.#plan.operationsMax) return;
    this.#socket ??= this.#connect();
    if (this.#socket === null) {
      this.#elsewhere();
      return;
    }
    const requests = this.#draw();
    const call = this.#world.nextMoment();
    let text = '';
    for (const each of requests) {
      text += bytesOf(each);
      this.#world.say(() => `c${this.id}→${this.#nodes[this.#nodeAt]?.id}: ${show(bytesOf(each))}`);
      if (each.expires && 'value' in each.input) {
        this.#history.mayExpire(this.id, each.input.key, each.input.value, call);
      }
      if (each.silent) this.#history.record(this.id, each.input, undefined, call);
      else this.#pending.push({ request: each, call });
    }
    this.#socket.send(Buffer.from(text, 'latin1'));
    const burst = ++this.#burst;
    this.#world.after(this.#plan.patienceMs, () => {
      if (burst !== this.#burst) return;
      this.#giveUp('waited too long');
      this.#elsewhere();
    });
  }

  #draw(): Request[] {
    const requests: Request[] = [];
    const length = this.#random.chance(0.5) ? 1 : 1 + this.#random.below(6);
    const own = !this.#habits.flushes && this.#random.chance(0.2);
    for (let i = 0; i < length; i++) {
      const name = `c${this.id}.${this.#names++}`;
      const uniqueOf = (key: string) => this.#uniques.get(key);
      const drawn = own
        ? drawFor(this.#random, this.#ownKey, name, uniqueOf)
        : drawRequest(this.#random, this.#habits, name, uniqueOf);
      requests.push(own ? { ...drawn, silent: false } : drawn);
    }
    return requests;
  }

  #connect(): NodeSocket | null {
    this.#reader = new ReplyReader();
    const socket = this.#nodes[this.#nodeAt]?.connect({
      onBytes: (bytes) => {
        if (this.#socket === socket) this.#received(bytes);
      },
      onClosed: () => {
        if (this.#socket !== socket || socket === null) return;
        this.#giveUp('was closed');
        this.#elsewhere();
      },
    });
    return socket ?? null;
  }

  #elsewhere(): void {
    for (let i = 0; i < this.#nodes.length; i++) {
      this.#nodeAt = (this.#nodeAt + 1) % this.#nodes.length;
      const node = this.#nodes[this.#nodeAt];
      if (node?.begun === true && !node.ended) break;
    }
    this.#soon();
  }

  #received(bytes: Buffer): void {
    this.#world.hashBytes(bytes);
    this.#reader.append(bytes);
    try {
      for (let pending = this.#pending[0]; pending !== undefined; pending = this.#pending[0]) {
        const reply = this.#reader.next();
        if (reply === null) return;
        this.#pending.shift();
        this.#answered(pending, reply);
      }
      if (!this.#reader.isEmpty) throw new Error('a reply without a request');
      this.#soon();
    } catch (error) {
      this.#world.fail('replies are as the protocol has them', `client ${this.id}: ${(error as Error).message}`);
    }
  }

  #answered({ request: { input }, call }: Pending, reply: Reply): void {
    this.#history.replies++;
    this.#world.say(() => `c${this.id}: ${show(textOf(reply))} ← ${input.kind} ${input.key}`);
    if (isWithoutOutcome(reply)) {
      this.#notAnswered({ input, call });
      return;
    }
    if (isRefused(reply)) {
      this.#history.refused++;
      return;
    }
    this.served++;
    const output = outputOf(input, reply);
    if (output.kind === 'value' && output.unique !== null) this.#uniques.set(input.key, output.unique);
    this.#history.record(this.id, input, output, call);
    if (input.key === this.#ownKey) this.#checkOwn(input, output);
  }

  /** Its outcome stays unknown. */
  #notAnswered({ input, call }: { readonly input: MemcachedInput; readonly call: number }): void {
    if (input.key === this.#ownKey) this.#takeNewOwnKey();
    if (input.kind === 'get' || input.kind === 'gets' || input.kind === 'gat' || input.kind === 'gats') return;
    if (input.kind === 'touch') return;
    this.#history.record(this.id, input, undefined, call);
  }

  #giveUp(why: string): void {
    this.#world.say(() => `c${this.id}: ${why}`);
    this.#burst++;
    this.#socket?.abort();
    this.#socket = null;
    for (const { request: each, call } of this.#pending.splice(0)) this.#notAnswered({ input: each.input, call });
  }

  /** Commands of one connection take effect in their order, and no other client uses this key: the reply is certain. */
  #checkOwn(input: MemcachedInput, output: MemcachedOutput): void {
    const after = memcachedModel.step(this.#ownState, input, output);
    if (after === undefined) {
      this.#world.fail(
        'program order',
        `client ${this.id}: ${JSON.stringify(input)} answered ${JSON.stringify(output)} in ${JSON.stringify(this.#ownState)}`,
      );
      return;
    }
    this.#ownState = after;
  }

  #takeNewOwnKey(): void {
    this.#ownKey = `own-${this.id}-${this.#names++}`;
    this.#ownState = memcachedModel.init();
  }
}

export function outputOf(input: MemcachedInput, { line, items }: Reply): MemcachedOutput {
  const isRead = input.kind === 'get' || input.kind === 'gets' || input.kind === 'gat' || input.kind === 'gats';
  if (!isRead) {
    if (items.length > 0) throw new Error(`${input.kind} was answered with an item`);
    return { kind: 'reply', text: line };
  }
  if (line !== 'END' || items.length > 1) throw new Error(`${input.kind} was answered ${show(line)}`);
  const item = items[0];
  if (item === undefined) return { kind: 'miss' };
  if (item.key !== input.key) throw new Error(`${input.kind} ${input.key} was answered with ${item.key}`);
  return { kind: 'value', value: item.value, unique: item.unique };
}

function textOf({ line, items }: Reply): string {
  return `${items.map(({ value, unique }) => `${value} ${unique ?? ''} `).join('')}${line}`;
}

function show(text: string): string {
  const flat = text.replaceAll('\r\n', '⏎');
  return flat.length > 90 ? `${flat.slice(0, 80)}…(${flat.length})` : flat;
}
