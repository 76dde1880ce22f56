// Swagger UI over openapi.json. The key comes from the page that opened this one, or from the form.

const form = document.getElementById("key");
const field = document.getElementById("key-text");
const refusal = document.getElementById("refusal");
const problem = document.getElementById("problem");
const UNKNOWN = "This key is not known here.";
const UNREACHABLE = "The service cannot be reached, or its answer is cut off.";
let key = null;
let latest = 0;

function authorised(headers = {}) {
  return key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
}

// What is wrong with the service, in its own words where it has any.
function tell(text) {
  problem.querySelector("p").textContent = text;
  problem.hidden = false;
}

function ofStatus(response) {
  return `The service answered with status ${response.status}.`;
}

async function show() {
  const turn = ++latest;
  let response, spec;
  try {
    response = await fetch("openapi.json", { headers: authorised(), credentials: "omit" });
    spec = await response.json();
  } catch {
    // A proxy's page is no JSON.
    if (turn === latest) tell(response?.ok === false ? ofStatus(response) : UNREACHABLE);
    return;
  }
  if (turn !== latest) return;
  problem.hidden = true;
  form.hidden = response.status !== 401;
  if (response.status === 401) {
    if (key) refusal.textContent = UNKNOWN;
    field.focus();
    return;
  }
  if (!response.ok) {
    tell(spec.error?.message ?? ofStatus(response));
    return;
  }
  // Below a path prefix, requests go below it too.
  spec.servers = [{ url: new URL(".", location.href).pathname.replace(/\/$/, "") || "/" }];
  SwaggerUIBundle({
    spec,
    dom_id: "#swagger-ui",
    validatorUrl: null,
    requestInterceptor: (request) => ({ ...request, headers: { ...authorised(), ...request.headers } }),
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  // No browser sends other characters in a header.
  if (!/^[\x21-\x7e]+$/.test(field.value.trim())) {
    refusal.textContent = UNKNOWN;
    return;
  }
  key = field.value.trim();
  field.value = "";
  show();
});

problem.querySelector("button").addEventListener("click", show);

addEventListener("message", (event) => {
  if (event.origin !== location.origin || event.source !== window.opener || typeof event.data?.key !== "string") return;
  key = event.data.key;
  show();
});

show();
window.opener?.postMessage("key?", location.origin);
