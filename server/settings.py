"""Declare the deployment settings: every MEDMOE_* variable with its cost."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, HttpUrl, field_validator, model_validator
from pydantic_settings import NoDecode

from medmoe.model.config import BUNDLED
from medmoe.server.auth.oidc.provider_url import is_provider_url
from medmoe.server.configuration.batch_settings import BatchSettings
from medmoe.server.configuration.integrity_settings import IntegritySettings
from medmoe.server.configuration.limit_pairs import LimitPairs
from medmoe.server.loopback import is_loopback
from medmoe.server.schemas.classify import MAX_LABELS
from medmoe.server.schemas.image_url import host_name
from medmoe.server.schemas.images import BurnedIn
from medmoe.server.schemas.inference import MAX_LABEL_CHARS
from medmoe.server.schemas.series import MAX_SLICES
from medmoe.server.schemas.views.explain import MAX_GRID

_LONGEST_SECONDS = 86_400.0
"""Largest time of a setting, a day: timers of the system overflow somewhere beyond."""


class Settings(BatchSettings, IntegritySettings, LimitPairs):
    """Deployment settings. Sizes in bytes or pixels, times in the unit that the name says."""

    host: str = "127.0.0.1"
    """Address to listen on; `::` takes IPv4 too. Anything but loopback lets the network in, and is refused without
    `api_keys`, `oidc_issuer` or `tls_client_ca`. On loopback without them only local names in Host are answered."""
    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port; 0 takes a free one."""
    keep_alive_seconds: int = Field(default=75, ge=1)
    """Time for which an idle connection is kept. It must be longer than that of a load balancer in front, often 60 s:
    otherwise some of its requests meet a closing connection, and it answers them with 502."""
    model: Path = Field(default_factory=lambda: BUNDLED)
    """Checkpoint directory. The default is the small demonstration model of the package: not for real images."""
    engine: Literal["vllm", "fake"] = "vllm"
    """Engine: vllm, or fake for a deterministic stand-in that needs no weights and knows no medicine."""
    admin_socket: Path | None = None
    """Unix socket for operators, which only the service's own user may open: `POST /admin/drain`,
    `POST /admin/router/reset`, `GET /admin/status`. None without it."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line that is written; info is one line per request."""
    otlp_endpoint: HttpUrl | None = None
    """Base address of an OpenTelemetry collector (OTLP over HTTP): one span a request, its stages, no content.
    While the collector is away spans are lost and a stop takes 5 s longer."""
    tls_certificate: Path | None = None
    """PEM file of the service's certificate and those between it and its authority; with it the service speaks https
    alone, TLS 1.2 or later. A renewed one is taken within ten seconds."""
    tls_key: Path | None = None
    """PEM file of the certificate's private key, without a password; needed with `tls_certificate`."""
    tls_client_ca: Path | None = None
    """PEM file of authorities: clients need a certificate of one of them (mutual TLS), health checks too, so use
    `admin_socket` for those."""

    api_keys: Path | None = None
    """File of API keys' hashes, a name and a hash a line (`--new-key NAME` makes one), optionally with a limit and
    scopes (server/OPERATION.md); read again every second. Without it every client that reaches the port may ask."""
    insecure: bool = False
    """Listen to the network without API keys, because something in front of the service authenticates."""
    allowed_hosts: Annotated[frozenset[str], NoDecode] = frozenset()
    """Names, with commas between them, by which clients call the service; others in Host are refused, IP addresses
    never. Empty: any name, or only local ones where `host` says so."""
    oidc_issuer: str | None = None
    """Identity provider (OpenID Connect) whose tokens are taken as bearers, beside API keys: the `iss` of its tokens,
    letter by letter. Its keys are fetched from there, by https, or by http from this machine."""
    oidc_audience: str | None = None
    """The `aud` that tokens must have; needed with `oidc_issuer`. Tokens for another service are refused."""
    oidc_jwks_url: str | None = None
    """Address of the provider's keys; absent: the one that its discovery document names."""
    oidc_ca_file: Path | None = None
    """PEM file of the certificate authority to trust for the provider instead of the system's."""
    oidc_scopes_claim: str = Field(default="scope", min_length=1)
    """Claim with the scopes ask, stats and admin, a text with spaces or a list, such as `realm_access.roles`."""
    oidc_scope_prefix: str = ""
    """What a scope of the claim begins with, such as `medmoe.` for `medmoe.ask`; others count as none."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests a minute for each name in `api_keys` without a limit of its own and each subject of `oidc_issuer`, up to
    all of them at once; without either for all clients together. Files that are stored, read or deleted, changes of
    batches, lists of sources and rendered images count too, of which the page asks for up to eight a second; lines of
    batches do not. No limit when absent: one caller can then fill the queue."""

    max_body_bytes: int = Field(default=64 * 2**20, ge=1024)
    """Largest request body: the default takes a full-field mammogram of 5,928 by 4,728 pixels as a form, and one of
    4,096 by 3,328 as base64, which adds a third. Every request that is being read may hold this much memory."""
    max_uploads: int = Field(default=64, ge=1)
    """Bodies that are read at once, each of at most `max_body_bytes`. For one more, a body that comes slower than 1 KiB
    a second is given up with 408, or the slowest of the API key with the most; otherwise the new one is refused with
    429."""
    body_memory_mib: int = Field(default=2048, ge=1)
    """Memory for all request bodies together, those that are read and those of requests inside; one more is refused
    with 429. The largest body, `max_body_bytes`, must fit."""
    max_image_pixels: int = Field(default=40_000_000, ge=2**16, le=89_000_000)
    """Largest square around a decoded image, at 4 to 40 bytes a pixel; Pillow's limit is the ceiling."""
    min_image_side: int = Field(default=16, ge=1, le=256)
    """Shortest accepted side in pixels; lower lets in images without content."""
    max_image_aspect_ratio: float = Field(default=20.0, ge=1, le=89_000_000)
    """Longest side over shortest; padding to a square costs the square of the long side."""
    max_image_frames: int = Field(default=2000, ge=1, le=100_000)
    """Most frames or pages in a file of which one is shown; showing a late frame may mean decoding all before it."""
    image_workers: int = Field(default=2, ge=1, le=64)
    """Processes that decode and resize, one image each at a time. Each takes a core and, beyond its imports,
    at most `image_memory_mib`."""
    image_memory_mib: int = Field(default=1536, ge=64, le=2**20)
    """Memory for decoding one image, enforced by the kernel (Linux); an image that needs more is refused. The default
    is enough for `max_image_pixels` as 16-bit grey, as floating point and with transparency."""
    image_cpu_seconds: float = Field(default=8.0, gt=0, le=_LONGEST_SECONDS)
    """Processor time for one image; then its process is ended and its request refused. Longer lets one sender keep a
    core busy."""
    image_seconds: float = Field(default=45.0, gt=0, le=_LONGEST_SECONDS)
    """Wall-clock time for decoding one image, ended likewise; longer keeps a worker under a stuck decoder."""
    image_cache_entries: int = Field(default=128, ge=0)
    """Decoded images that stay in memory, at the model's size, for the next question about the same file: 0.15 MB each
    at 224 pixels. The least recently used goes first; a tenant never finds another tenant's. With 0 no decoded image
    outlives its request here; the engine's caches (`encoder_cache_mib`, `kv_cache_gib`) are separate."""
    dicom_burned_in: BurnedIn = "refuse"
    """DICOM images with text in them, which may be a name: `refuse` those whose file says so; `refuse_unless_clear`
    also ultrasound, endoscopy, photographs and secondary captures whose file does not deny it, which is most of
    them; `accept` all."""
    image_url_hosts: Annotated[frozenset[str], NoDecode] = frozenset()
    """Hosts from which images are fetched by https URL, with commas between them; none when empty. Exact names, no
    addresses, and only hosts whose every address is public. Each costs trust: every client can then make this service
    request any path there."""
    image_url_seconds: float = Field(default=10.0, gt=0, le=_LONGEST_SECONDS)
    """Time to fetch one image, from its host's name to its last byte; longer keeps a slot under a slow host."""
    image_url_fetches: int = Field(default=16, ge=1)
    """Images that are fetched at once; the next is refused with 429. Each holds a slot and up to `max_body_bytes`:
    with as many as `max_concurrent`, slow hosts can keep out clients that send images themselves."""
    dicomweb_sources: Path | None = None
    """TOML file of DICOMweb sources that requests may name: a table each with `url`, and optionally `password_file`,
    `token_file`, `ca_file` and `store`; read once, at the start, but passwords and tokens for each request.
    server/dicomweb/README.md shows one. Each costs trust: every client can then ask about every image there."""
    dicomweb_seconds: float = Field(default=30.0, gt=0, le=_LONGEST_SECONDS)
    """Time for one request to a source, from connecting to the last byte; longer keeps a slot under a slow source."""
    dicomweb_requests: int = Field(default=16, ge=1)
    """Requests to sources at once; the next is refused with 429. Each may hold `max_body_bytes`."""
    max_series: int = Field(default=4, ge=1)
    """Series that are answered at once; the next is refused with 429. Each holds one slot and up to
    `max_series_bytes` beside its body."""
    max_series_files: int = Field(default=1000, ge=2, le=5000)
    """Most files of a series, or frames of a file."""
    max_series_bytes: int = Field(default=256 * 2**20, ge=1024)
    """Largest body with a series, and largest series once unpacked: the default takes 500 slices of 512 by 512. It
    must fit into `body_memory_mib`."""
    max_series_pixels: int = Field(default=200_000_000, ge=2**16)
    """Most pixels of the slices of a series that are looked at, together."""
    series_slices: int = Field(default=16, ge=1, le=MAX_SLICES)
    """Slices of a series that are looked at where a request does not say; each costs one answer."""
    max_series_slices: int = Field(default=64, ge=1, le=MAX_SLICES)
    """Most slices of a series that a request may ask for."""
    max_question_chars: int = Field(default=4000, ge=32)
    """Longest question; tokenising it runs on the event loop, about a microsecond a character."""
    chat_history: Literal["refuse", "last_question"] = "refuse"
    """What chat does with earlier turns and system messages that the checkpoint's prompt has no place for. refuse names
    them in an error. last_question leaves them out, answers the last question alone, and lists them in the answer
    (`medmoe.ignored_messages`): chat programs go on, but people may believe that the model remembers."""
    max_labels: int = Field(default=64, ge=2, le=MAX_LABELS)
    """Most labels in a classification; each costs an engine step for every token that it shares with no other."""
    max_label_steps: int = Field(default=512, ge=2)
    """Most tokens of all labels together that no two share: each is an engine step of its own."""
    max_label_chars: int = Field(default=200, ge=1, le=MAX_LABEL_CHARS)
    """Longest label; each of its tokens is an engine step."""
    explain_grid: int = Field(default=8, ge=2, le=MAX_GRID)
    """Cells along the longer side of an image in `/v1/explain`, where a request does not say; each costs an answer."""
    max_explain_steps: int = Field(default=1024, ge=2)
    """Most cells times tokens of the answer in one map: so many engine requests at most."""
    max_explains: int = Field(default=4, ge=1)
    """Maps that are made at once; the next is refused with 429. All together keep four images in the engine."""
    max_permutations: int = Field(default=8, ge=1, le=26)
    """Most orders of the options that one classification of mode choice asks about, an engine step or two each. Fewer
    than there are options leave some preference for a letter in the answer."""
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    """Answers less sure than this are marked as abstained, where a request does not say otherwise; absent: none. What
    it costs in answers and gains in right ones only an evaluation of the checkpoint tells."""
    min_label_mass: float = Field(default=0.01, ge=0, le=1)
    """Classifications whose labels are together less probable than this are marked as abstained, where a request does
    not say otherwise: the model would rather have said something else than any of them."""
    default_max_tokens: int = Field(default=128, ge=1)
    """Answer length when a request does not say; lowered to what the model's context leaves."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest answer a request may ask for; an answer holds its slot until it ends."""

    max_concurrent: int = Field(default=32, ge=1)
    """Requests inside at once. More raises throughput until the engine's batch is full, then only latency."""
    max_queued: int = Field(default=64, ge=0)
    """Requests that may wait for a slot; the next is refused with 429. Each waits with its body in memory."""
    timeout_ms: int = Field(default=60_000, ge=1, le=86_400_000)
    """Time for one answer, queue included; a request may ask for less. Longer keeps slots under stuck clients."""
    drain_lag_seconds: float = Field(default=0.0, ge=0, le=_LONGEST_SECONDS)
    """How long new requests are still answered after a stop has begun and /health/ready is 503: as long as a load
    balancer needs to notice. In Kubernetes the chart's `preStopSeconds` does the same."""
    drain_seconds: float = Field(default=30.0, ge=0, le=_LONGEST_SECONDS)
    """How long shutdown waits for requests in flight, which are then ended with 503; an orchestrator's grace period
    must be some ten seconds longer."""
    on_engine_death: Literal["restart", "exit"] = "restart"
    """restart puts a new engine in the place of one that has died, while the process goes on answering liveness and
    metrics; exit ends the process with status 3 at once, for an orchestrator to start another."""
    engine_hang_seconds: float = Field(default=30.0, gt=0, le=_LONGEST_SECONDS)
    """Time in which the engine must answer a ping between two steps; else it is killed and counts as dead. Less than
    the longest step kills a slow engine, more lets clients wait for one that hangs."""
    engine_restarts: int = Field(default=5, ge=1)
    """Most attempts to restart the engine within `engine_restart_window_seconds`; the process then exits with 3. Each
    attempt loads the model anew."""
    engine_restart_window_seconds: float = Field(default=600.0, gt=0, le=_LONGEST_SECONDS)
    """Time after which an attempt no longer counts; longer gives up sooner on an engine that dies now and then."""
    engine_restart_delay_seconds: float = Field(default=1.0, ge=0, le=_LONGEST_SECONDS)
    """Wait before the second attempt within the window, doubled for each further one, at most a minute; the first is
    made at once. Longer gives a busy machine time, and keeps clients waiting."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format in the engine. auto: the checkpoint's own on GPU; on CPU bfloat16 where the processor multiplies it
    natively (Intel's AMX, AVX-512 BF16, Arm's BF16; on two cores 1.5 to 2 times as many answers a second with the
    bundled checkpoint) or experts are quantised, else float32. The format used is in `/v1/metadata` and in each
    answer's provenance: set it where machines of different kinds must agree. float32 on GPU multiplies in IEEE
    float32, not TF32, without tensor cores."""
    kv_cache_gib: int | None = Field(default=None, ge=1)
    """Memory for the engine's key-value cache; too little makes requests wait for each other. Absent: 1 on CPU, and
    what `gpu_memory_utilization` leaves on GPU."""
    gpu_memory_utilization: float = Field(default=0.92, gt=0, le=1)
    """Share of each GPU's memory for weights, activations and key-value cache. `encoder_cache_mib` comes on top. Less
    leaves room for another process on the same GPU."""
    encoder_cache_mib: int = Field(default=256, ge=0)
    """Memory for the vision tower's embeddings of recent images, beside the key-value cache and on its device: another
    question about one of them skips the tower, most of a short answer's work. 256 MiB hold 8,192 images of the bundled
    checkpoint in bfloat16, 91 of the paper's (576 embeddings of 2,560 numbers each). vLLM's own minimum, one
    engine step's worth, is kept whatever this says."""
    max_num_seqs: int = Field(default=64, ge=1)
    """Sequences in one engine step; a classification uses one per branching point of its labels."""
    tensor_parallel_size: int = Field(default=1, ge=1, le=64)
    """GPUs, or groups of CPU cores, that hold a share of every layer each. Each takes `kv_cache_gib` on CPU, and every
    layer waits for all of them."""
    expert_parallel: bool = False
    """Give each tensor-parallel rank whole experts instead of a slice of every expert: less waiting, unevenly spread
    work. GPU only."""
    quantization: Literal["none", "int8_per_channel", "fp8_per_tensor", "fp8_per_channel", "fp8_per_block"] = "none"
    """Number format of the routed experts' weights, made while loading: half the memory of 16 bit, and now and then
    another answer; tests/benchmarks/kernels/quantised_parity.py measures both. Few CPUs have int8, none fp8."""
    enforce_eager: bool = False
    """Skip graph capture and compilation on GPU: a faster start for slower answers. CPU always skips them."""

    @property
    def url(self) -> str:
        """Return the base URL on this machine, without a slash at its end."""
        scheme = "http" if self.tls_certificate is None else "https"
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 (compared, not bound)
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"

    @field_validator("host")
    @classmethod
    def _without_brackets(cls, host: str) -> str:
        return host[1:-1] if host.startswith("[") and host.endswith("]") else host

    @field_validator("image_url_hosts", "allowed_hosts", mode="before")
    @classmethod
    def _host_names(cls, hosts: str | frozenset[str]) -> frozenset[str]:
        listed = hosts.split(",") if isinstance(hosts, str) else hosts
        try:
            return frozenset(host_name(host.strip()) for host in listed)
        except ValueError as error:
            # IDNA's own words quote the name.
            raise ValueError("needs names of hosts with commas between them, no URLs, ports or IP addresses") from error

    @property
    def authenticates(self) -> bool:
        """Return whether callers need an API key, a token or a certificate."""
        return any(door is not None for door in (self.api_keys, self.oidc_issuer, self.tls_client_ca))

    @field_validator("oidc_issuer", "oidc_jwks_url")
    @classmethod
    def _provider_url(cls, url: str | None) -> str | None:
        if url is not None and not is_provider_url(url):
            raise ValueError("needs an https URL without user and fragment, or an http URL of this machine")
        return url

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("MEDMOE_TLS_CERTIFICATE and MEDMOE_TLS_KEY need each other")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("MEDMOE_TLS_CLIENT_CA needs MEDMOE_TLS_CERTIFICATE")
        return self

    @model_validator(mode="after")
    def _tokens_have_an_audience(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("MEDMOE_OIDC_ISSUER and MEDMOE_OIDC_AUDIENCE need each other")
        if self.oidc_issuer is None and (self.oidc_jwks_url or self.oidc_ca_file):
            raise ValueError("MEDMOE_OIDC_JWKS_URL and MEDMOE_OIDC_CA_FILE need MEDMOE_OIDC_ISSUER")
        return self

    @model_validator(mode="after")
    def _network_needs_keys(self) -> Self:
        if not self.authenticates and not self.insecure and not is_loopback(self.host):
            raise ValueError(
                "listening beyond this machine needs MEDMOE_API_KEYS, MEDMOE_OIDC_ISSUER or MEDMOE_TLS_CLIENT_CA,"
                " or MEDMOE_INSECURE=true where something in front of the service authenticates"
            )
        return self
