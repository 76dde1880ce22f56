// Swagger UI over openapi.json. The key comes from the page that opened this one, or from the form.

const form = document.getElementById("key");
const field = document.getElementById("key-text");
const refusal = document.getElementById("refusal");
const UNKNOWN = "This key is not known here.";
let key = null;

function authorised(headers = {}) {
  return key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
}

async function show() {
  const response = await fetch("openapi.json", { headers: authorised(), credentials: "omit" });
  form.hidden = response.status !== 401;
  if (response.status === 401) {
    if (key) refusal.textContent = UNKNOWN;
    field.focus();
    return;
  }
  const spec = await response.json();
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

addEventListener("message", (event) => {
  if (event.origin !== location.origin || event.source !== window.opener || typeof event.data?.key !== "string") return;
  key = event.data.key;
  show();
});

show();
window.opener?.postMessage("key?", location.origin);
