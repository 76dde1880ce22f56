// Server-sent events, read from a fetch: the browser's EventSource can neither send a POST nor be stopped.

/** Each event's data as JSON, until the stream says that it is done. Throws when it ends before. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new TypeError("the stream broke off");
      const blocks = (waiting + value).split("\n\n");
      waiting = blocks.pop();
      for (const block of blocks) {
        const data = block.replace(/^data: /, "");
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
    }
  } finally {
    // Left early, the service works on for nobody.
    reader.cancel().catch(() => {});
  }
}
