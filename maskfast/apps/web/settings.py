"""What a server can be told: the address, the token and every bound it keeps."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from maskfast.core.cores import count_cores
from maskfast.core.errors import ConfigError

MEBIBYTE = 1 << 20
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServeSettings(BaseModel):
    """The options of one server; sizes are bytes, times seconds, counts pictures unless said otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535, description="0 takes a free one")
    token: SecretStr | None = Field(default=None, description="what clients must send as a bearer token")
    max_body: int = Field(default=32 * MEBIBYTE, ge=1, description="bytes of one request's body")
    max_memory: int = Field(default=256 * MEBIBYTE, ge=1, description="bytes of all bodies held at once")
    max_files: int = Field(default=32, ge=1, description="pictures in one request")
    max_pixels: int | None = Field(default=None, ge=1, description="pixels of one picture; unset: the loader's bound")
    max_waiting: int = Field(default=32, ge=1, description="pictures that may wait for a seat")
    seats: int = Field(default=0, ge=0, description="pictures decoded and scored at once; 0: three a processor")
    max_batch: int = Field(default=16, ge=1, description="pictures in one call of the model")
    decoders: int = Field(default=0, ge=0, description="decoder processes; 0: one a processor")
    max_connections: int = Field(default=1000, ge=1, description="open connections")
    rate: int = Field(default=0, ge=0, description="requests a minute from one address; 0: unbounded")
    head_seconds: float = Field(default=10, gt=0, description="for a request's line and headers")
    body_seconds: float = Field(default=20, gt=0, description="for a request's body")
    decode_seconds: float = Field(default=10, gt=0, description="for decoding one picture")
    patience: float = Field(default=10, gt=0, description="that a picture may wait for a seat")
    stop_seconds: int = Field(default=30, ge=1, description="to finish what was accepted when told to stop")

    @field_validator("token")
    @classmethod
    def _clean_token(cls, token: SecretStr | None) -> SecretStr | None:
        """Without blanks around it: no client sends those."""
        if token is None:
            return None
        text = token.get_secret_value().strip()
        if not text:
            raise ConfigError("--token: is empty; give a secret of at least a few characters")
        if not (text.isascii() and text.isprintable()):
            raise ConfigError(
                "--token: has characters that not every client can send; use ASCII letters, digits and signs"
            )
        return SecretStr(text)

    @model_validator(mode="after")
    def _need_a_token_beyond_loopback(self) -> "ServeSettings":
        if self.host not in LOOPBACK and self.token is None:
            raise ConfigError(f"--host {self.host}: is reachable by others; add --token SECRET or keep to 127.0.0.1")
        if self.max_files > self.max_waiting:
            raise ConfigError(
                f"max_files: {self.max_files} pictures a request never fit {self.max_waiting} waiting places"
            )
        return self

    def count_seats(self) -> int:
        """Pictures that may be decoded and scored at once."""
        return self.seats or 3 * count_cores()

    def count_crowded_seats(self) -> int:
        """The same under overload: a picture for two processors, since those at work together delay each other."""
        return min(self.count_seats(), max(1, count_cores() // 2))

    def count_decoders(self) -> int:
        """Decoder processes to keep."""
        return self.decoders or count_cores()
