import { outputOf } from './clients.ts';
import type { History } from './history.ts';
import type { Plan } from './plan.ts';
import type { SimNode } from './processes.ts';
import { isRefused, isWithoutOutcome, ReplyReader } from './replies.ts';
import { bytesOf, request } from './requests.ts';
import type { NodeSocket } from './socket.ts';
import type { World } from './world.ts';

/**
 * Asks one node again and again until it answers: to read every key that the clients shared, which shows what is left of
 * all that was acknowledged, or to write.
 */
export class Probe {
  done = false;
  readonly node: SimNode;
  readonly #id: number;
  readonly #what: 'read' | 'write';
  readonly #world: World;
  readonly #plan: Plan;
  readonly #history: History;
  #attempt = 0;

  constructor(id: number, what: 'read' | 'write', world: World, plan: Plan, node: SimNode, history: History) {
    this.#what = what;
    this.#id = id;
    this.#world = world;
    this.#plan = plan;
    this.node = node;
    this.#history = history;
  }

  begin(): void {
    const attempt = ++this.#attempt;
    const again = () => {
      if (attempt === this.#attempt) this.begin();
    };
    this.#world.after(this.#plan.timing.electionTimeoutMs / 4, () => {
      if (this.done || attempt !== this.#attempt) return;
      if (this.#ask(attempt, again) === null) again();
    });
  }

  #ask(attempt: number, again: () => void): NodeSocket | null {
    const requests =
      this.#what === 'write'
        ? [request({ kind: 'set', key: `probe-${this.#id}`, value: `${attempt}` })]
        : this.#history.allKeys().map((key) => request({ kind: 'get', key }));
    const reader = new ReplyReader();
    const call = this.#world.nextMoment();
    let answered = 0;
    const socket = this.node.connect({
      onBytes: (bytes) => {
        if (attempt !== this.#attempt) return;
        reader.append(bytes);
        for (let reply = reader.next(); reply !== null; reply = reader.next()) {
          const asked = requests[answered++];
          if (asked === undefined || isWithoutOutcome(reply) || isRefused(reply)) {
            again();
            return;
          }
          this.#history.record(this.#id, asked.input, outputOf(asked.input, reply), call);
        }
        if (answered === requests.length) this.done = true;
      },
      onClosed: again,
    });
    socket?.send(Buffer.from(requests.map(bytesOf).join(''), 'latin1'));
    return socket;
  }
}
