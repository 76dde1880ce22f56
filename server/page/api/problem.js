// What went wrong, as the service says it.

export class Problem extends Error {
  constructor({ type, code, message, param = null, request_id = null }, { status = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { type, code, param, requestId: request_id, status, retryAfter });
  }

  /** Whether the same request may be answered later, or with another key. */
  get isPassing() {
    return this.code === "no_answer" || this.status === 401 || this.status === 429 || this.status >= 500;
  }

  /** Of an answer that is not 200. */
  static async of(response) {
    const body = await response.json().catch(() => null);
    if (typeof body?.error?.code !== "string") return Problem.#unexpected(response);
    return new Problem(body.error, Problem.#about(response));
  }

  /** What fetching, or reading an answer, throws. A stop is thrown too, and is nothing that went wrong. */
  static from(error, response = null) {
    if (error instanceof SyntaxError && response) return Problem.#unexpected(response);
    if (!(error instanceof TypeError)) return error;
    const message = "The service cannot be reached, or the connection broke.";
    return new Problem({ type: "network_error", code: "no_answer", message });
  }

  /** Of a chosen file. */
  static ofFile() {
    const message = "The file cannot be read: it has changed or is gone, or it is a folder.";
    return new Problem({ type: "file_error", code: "unreadable_file", message });
  }

  /** Of a series in a source. */
  static ofSeries() {
    const message = "The series has changed since it was read: its slices are not those that are shown.";
    return new Problem({ type: "series_error", code: "series_changed", message });
  }

  static #unexpected(response) {
    const requestId = response.headers.get("X-Request-Id");
    const message = "The answer is not from this service.";
    const code = String(response.status);
    return new Problem({ type: "unexpected_answer", code, message, request_id: requestId }, Problem.#about(response));
  }

  static #about(response) {
    return { status: response.status, retryAfter: response.headers.get("Retry-After") };
  }
}
