// What a person can do about a problem, by its code.

const ANOTHER = "Choose another image, or export this one again.";
const SMALLER = "Choose a smaller file, or export the image with fewer pixels.";
const SOON = "Try again in a minute.";
const ADVICE = {
  unreadable_file: "Choose it again; of a folder, choose the files, or a ZIP archive of them.",
  unsupported_image: "Choose an image in one of these formats.",
  "series.unsupported_image": "Choose the DICOM files of one series, or one image alone.",
  not_a_volume: "Choose another series, or ask about its images one at a time.",
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
  identity_provider_unavailable: SOON,
  source_timeout: SOON,
  source_unavailable: SOON,
  draining: SOON,
  overloaded: SOON,
  rate_limited: SOON,
  deadline_exceeded: "Try again, or ask for a shorter answer.",
  invalid_api_key: "Enter a valid key at the top of the page.",
  invalid_token: "Sign in again, and enter the new token at the top of the page.",
  insufficient_scope: "Ask the service's operator for a key that may do this.",
  internal_error: "Try again; if it fails again, send the request id under Details to the service's operator.",
  no_answer: "Check the network, then try again.",
  model_not_found: "Ask again: the service has another model now.",
  series_changed: "Choose it again, then ask.",
  // What stands before the service answers in its place.
  413: SMALLER,
  502: SOON,
  503: SOON,
  504: SOON,
};
const PLAIN = {
  burned_in_annotation: "Text is burned into this image and may name the patient.",
  deadline_exceeded: "The answer took too long.",
  model_not_found: "The model that gave this answer is not served any more.",
  uniform_image: "The image comes out as one shade.",
};
/* The user of the page sends no fields and cannot change a setting; Details keep them for those who can. */
const FOR_PROGRAMS = [
  / ?\((?:MEDMOE_\w+(?:, )?)+\)/g,
  /; (try again|\/health\/ready tells|(ask|GET) [^;]*\/v1\/)[^;]*(?=\.$)/,
  /,? or (send )?allow_\w+=true/,
  / (for|to) POST \/v1\/\S+(?=\.)/,
];

/** One sentence on what happened, and what to do or null. */
export function inPlainWords({ code, message, param, retryAfter }) {
  const happened = FOR_PROGRAMS.reduce((text, words) => text.replace(words, ""), PLAIN[code] ?? message);
  // A proxy may send a date.
  const later = /^\d+$/.test(retryAfter ?? "") ? `Try again in ${retryAfter} s.` : null;
  return { happened, advice: later ?? ADVICE[`${param}.${code}`] ?? ADVICE[code] ?? null };
}
