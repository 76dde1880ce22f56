// Where a question or labels go, for an image or a series: the route, how it is sent, and what takes the answer.

import { AnswerView } from "./answer/answer.js";
import { ClassificationView } from "./answer/classification.js";
import { Problem } from "./api/problem.js";
import { SeriesView } from "./series/series_view.js";

/** `image` and `series` are those that are chosen. `open(box, subject)` makes a view; `send` fills and answers it. */
export function routes(service, { image, series }) {
  return {
    ask: {
      route: "v1/vqa",
      open: (box) => new AnswerView(box),
      async send(view, { fields }, signal) {
        for await (const piece of service.ask(image.file, fields, signal)) {
          // A piece that had come before the stop.
          signal.throwIfAborted();
          if (typeof piece !== "string") return piece;
          view.add(piece);
        }
      },
    },
    classify: {
      route: "v1/classify",
      open: (box) => new ClassificationView(box),
      send: (view, { fields }, signal) => service.classify(image.file, fields, signal),
    },
    series: {
      route: "v1/series",
      open: (box, { slices }) => new SeriesView(box, { slices, jump: (index) => series.jump(index) }),
      async send(view, { fields, slices }, signal) {
        const shown = new Map(slices.map(({ index, instance }) => [index, instance]));
        for await (const event of service.askSeries(series.file, fields, signal)) {
          signal.throwIfAborted();
          if (event.kind !== undefined) return event;
          if (event.slice === undefined) continue;
          // A source may have other slices by now than those that are shown.
          if (shown.get(event.slice.index) !== event.slice.instance) throw Problem.ofSeries();
          view.add(event);
        }
      },
    },
  };
}
