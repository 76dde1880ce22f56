// A button that gets past a problem, where there is one.

/** {text, run}, or null; `image` and `series` are those that are chosen. */
export function wayOut(error, { image, series }) {
  const shown = series.file === null ? image : series;
  if (error.isPassing && shown.file !== null && shown.rendered === null) {
    return { text: "Try again", run: () => shown.again() };
  }
  if (shown === series) {
    const isIrregular = error.code === "missing_slices" || error.code === "tilted_gantry";
    return isIrregular ? { text: "Take it all the same", run: () => series.allowIrregular() } : null;
  }
  const isUniform = error.code === "uniform_image";
  return isUniform ? { text: "Show it all the same", run: () => image.allowUniform() } : null;
}
