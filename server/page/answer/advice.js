// What a person can do about a problem, by its code.

const ANOTHER = "Choose another image, or export this one again.";
const SMALLER = "Choose a smaller file, or export the image with fewer pixels.";
const SOON = "Try again in a minute.";
const ADVICE = {
  unsupported_image: "Choose an image in one of these formats.",
  unreadable_image: ANOTHER,
  invalid_image: ANOTHER,
  decoder_died: ANOTHER,
  image_too_large: SMALLER,
  image_too_costly: SMALLER,
  body_too_large: SMALLER,
  burned_in_annotation: "Choose an image without text in it.",
  uniform_image: "Choose another window, frame or image; or show it all the same.",
  not_ready: SOON,
  engine_dead: SOON,
  engine_restarting: SOON,
  decoder_unavailable: SOON,
  audit_unavailable: SOON,
  draining: SOON,
  deadline_exceeded: "Try again, or ask for a shorter answer.",
  invalid_api_key: "Enter a valid key at the top of the page.",
  invalid_token: "Sign in again, and enter the new token at the top of the page.",
  insufficient_scope: "Ask the service's operator for a key that may do this.",
  internal_error: "Try again; if it fails again, send the request id under Details to the service's operator.",
  no_answer: "Check the network, then try again.",
};
const SETTING = / ?\((?:MEDMOE_\w+(?:, )?)+\)/g;
/* The user of the page cannot change a setting; Details keep its name for the operator. */

/** One sentence on what happened, and what to do or null. */
export function inPlainWords({ code, message, retryAfter }) {
  if (code === "burned_in_annotation") message = "Text is burned into this image and may name the patient.";
  if (code === "uniform_image") message = "The image comes out as one shade.";
  if (retryAfter) return { happened: message.replace(/; try again.*$/, "."), advice: `Try again in ${retryAfter} s.` };
  return { happened: message.replace(SETTING, ""), advice: ADVICE[code] ?? null };
}
