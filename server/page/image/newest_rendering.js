// Renderings of what is chosen, one after the other: only the newest lands.

export class NewestRendering {
  #running = null;
  #done = null;

  /** Begin `render(signal)` in the place of the one that runs; its `signal` is aborted when it is overtaken. */
  start(render) {
    this.abort();
    const own = (this.#running = new AbortController());
    this.#done = render(own.signal).finally(() => {
      if (this.#running === own) this.#running = null;
    });
  }

  get isRunning() {
    return this.#running !== null;
  }

  abort() {
    this.#running?.abort();
    this.#running = null;
  }

  /** Wait until none runs, those included that overtake. */
  async settled() {
    while (this.isRunning) await this.#done;
  }
}
