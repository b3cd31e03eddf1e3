"""Settings of the service: the `args` of `serve_config.yaml`."""

from typing import Annotated

from pydantic import Field

from dreamhead import storage
from dreamhead.config import DubSettings, Section

WebhookHost = Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d+)?$")]
PrivateHost = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(:\d+)?$")]


class ServingSettings(Section):
    """What one service dubs with, where it keeps things, and what it lets people do."""

    storage: str = "dreamhead-service"
    """Directory, or `s3://` uri, for jobs, uploads and results."""
    work: str = ""
    """Directory for what can be reused between jobs; below `storage` unless given."""
    checkpoint: str = ""
    """Directory with the weights; the bundled ones unless given."""
    checkpoints: dict[str, str] = Field(default_factory=dict)
    """Other weights that a request may name: directory uris by name. A stage keeps the last two that were used."""
    dub: DubSettings = DubSettings()
    """As in the batch job; `pools` sizes nothing here, the deployments are sized by Serve's own settings."""
    allowed_prefixes: tuple[str, ...] = ()
    """Directory uris below which a request may name inputs; with none, inputs are uploaded."""
    samples: str = ""
    """Directory uri of videos and speech that anybody may dub as `sample:NAME`, and the page offers."""
    api_keys_file: str = ""
    """File of API keys, see `dreamhead.serving.keys`; else DREAMHEAD_API_KEYS; with neither, everybody may do all."""
    max_upload_mb: int = Field(default=512, ge=1)
    """Most bytes of an upload, video and speech together, in millions."""
    max_duration_s: float = Field(default=600.0, gt=0)
    """Longest video, speech and output, in seconds."""
    upload_idle_s: float = Field(default=30.0, gt=0)
    """Silence in the middle of an upload, in seconds, after which it is answered with 408."""
    probe_timeout_s: float = Field(default=20.0, gt=0)
    """Longest time to look into an upload, in seconds; a decoder that hangs is ended then."""
    job_timeout_s: float = Field(default=6 * 3600.0, gt=0)
    """Longest time that workers work on one job, in seconds; waiting doesn't count."""
    max_active_jobs: int = Field(default=100, ge=1)
    """Jobs that may wait or run at once; more are answered with 429."""
    max_active_jobs_per_key: int = Field(default=20, ge=1)
    """The same, of one API key."""
    retry_after_s: int = Field(default=15, ge=1)
    """What a full queue tells clients to wait, in seconds."""
    jobs_at_once: int = Field(default=4, ge=1)
    """Jobs that one replica of Dubber takes through the stages at the same time."""
    chunks_at_once: int = Field(default=4, ge=1)
    """Chunks of one job that are between analysis and rendered at the same time."""
    streams_at_once: int = Field(default=16, ge=1)
    """Videos that one replica of Api streams while they are rendered; each is a thread that muxes."""
    lease_s: float = Field(default=30.0, ge=1)
    """Silence of a worker, in seconds, after which another one takes its jobs over."""
    max_claims: int = Field(default=5, ge=1)
    """Workers that may die over a job before it is given up."""
    poll_s: float = Field(default=1.0, gt=0)
    """Seconds between looks at the queue, and between the looks of a client's event stream."""
    keep_days: float = Field(default=30.0, ge=0)
    """Days after which a job that is over is removed, with its files; 0 keeps all for ever."""
    webhook_hosts: tuple[WebhookHost, ...] = ()
    """Where webhooks may go, by https, to public addresses: HOST, *.DOMAIN, or either with :PORT."""
    webhook_private_hosts: tuple[PrivateHost, ...] = ()
    """Where they may go within your own network, by http too: HOST or HOST:PORT."""
    webhook_secret_file: str = ""
    """File with what webhooks are signed with, see `dreamhead.serving.webhooks`; else DREAMHEAD_WEBHOOK_SECRET."""
    webhook_retry_hours: float = Field(default=24.0, ge=0)
    """How long a webhook is tried."""

    @property
    def work_uri(self) -> str:
        """Where artefacts lie."""
        return self.work or storage.join(self.storage, "work")
