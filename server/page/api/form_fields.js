// A form's filled-in fields, under the names and in the types that the API has.

/** Fills in a form as it was when it had these fields; what they leave out is as it would be anyway. */
export function restoreFields(form, fields) {
  form.reset();
  for (const input of form.elements) {
    if (!Object.hasOwn(fields, input.name)) continue;
    if (input.type === "checkbox") input.checked = fields[input.name];
    else input.value = fields[input.name];
  }
}

/** A field in which something else than a number is written, with what to say; null: there is none. */
export function notANumber(form) {
  const field = [...form.elements].find((input) => input.validity.badInput && input.closest("[hidden]") === null);
  return field === undefined ? null : { field, message: "This is not a number." };
}

/** What is empty, hidden or as it would be anyway is left out. */
export function formFields(form) {
  const fields = {};
  for (const input of form.elements) {
    if (!input.name || input.closest("[hidden]") !== null) continue;
    if (input.type === "checkbox") {
      if (input.checked) fields[input.name] = true;
    } else if (input.value.trim() !== "") {
      fields[input.name] = input.type === "number" ? Number(input.value) : input.value.trim();
    }
  }
  return fields;
}
