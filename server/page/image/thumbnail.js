// A small copy of an image that is shown.

const SIDE = 128;
/* Pixels of its longer side. */

/** Of an `img` element, as data URL. */
export function thumbnail(image) {
  const { naturalHeight: height, naturalWidth: width } = image;
  const scale = Math.min(1, SIDE / Math.max(width, height, 1));
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: Math.max(1, width * scale), height: Math.max(1, height * scale) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL();
}
