"""Artefacts in an S3-compatible store.

Files go there through the web server and after its checks, as a multipart upload of several parts at once, each part
with its MD5, which the store compares before it takes the part. An upload that was broken off goes on with the parts
that are there and have the right MD5. The name is the hash of the whole, so whoever fetches a file checks it again:
neither the store nor the way to it is trusted. Objects have a type that no browser runs, should the bucket be public.

Credentials come the way that boto3 finds them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role.
"""

import base64
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError

from tiltyard.submissions.stores.errors import StoreError
from tiltyard.submissions.stores.scratch import scratch_file

logger = logging.getLogger(__name__)

PART_BYTES: Final = 16 << 20
PARTS_MAX: Final = 10_000  # the protocol's bound
PARTS_AT_ONCE: Final = 2  # so many are in memory
_READ_BYTES: Final = 1 << 20
_FETCH_ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.5
_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchUpload"})
_HEADERS: Final = {"ContentType": "application/octet-stream", "ContentDisposition": "attachment"}
_OWNER: Final = "owner"
_OWNER_BYTES: Final = 100
_BROKEN: Final = (HTTPClientError, IncompleteReadError, OSError)


class S3Store:
    """Objects named PREFIX/artefacts/ab/abcd… in one bucket."""

    def __init__(self, *, bucket: str, prefix: str, endpoint_url: str | None, region: str, scratch_dir: Path) -> None:
        self._bucket = bucket
        self._root = f"{prefix}/artefacts/" if prefix else "artefacts/"
        self._scratch_dir = scratch_dir
        config = Config(
            retries={"max_attempts": 4, "mode": "standard"},
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=PARTS_AT_ONCE + 2,
            s3={"addressing_style": "path"} if endpoint_url else {},
            # Not every store knows the newer checksums; Content-MD5, which each part carries here, they all do.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        # boto3's own default session keeps the first credentials that it finds for as long as the process lives.
        self._client = boto3.Session().client("s3", endpoint_url=endpoint_url, region_name=region, config=config)

    def send_ahead(self, path: Path, sha256: str) -> None:
        """Upload the file; done when it is there."""
        self.put(path, sha256)

    def put(self, path: Path, sha256: str) -> None:
        size_bytes = path.stat().st_size
        if self._size_of(sha256) == size_bytes:
            return
        try:
            if size_bytes <= PART_BYTES:
                content = path.read_bytes()
                self._call(self._client.put_object, sha256, Body=content, ContentMD5=_md5(content), **_HEADERS)
            else:
                self._put_in_parts(path, size_bytes, sha256)
        except StoreError:
            if self._size_of(sha256) != size_bytes:  # else somebody else has just put it there
                raise
        if (found := self._size_of(sha256)) != size_bytes:
            raise StoreError(f"The store has {found} bytes of the artefact {sha256}, which has {size_bytes}.")

    def holds(self, sha256: str) -> bool:
        return self._size_of(sha256) is not None

    @contextmanager
    def fetched(self, sha256: str) -> Iterator[Path]:
        """A copy, removed afterwards."""
        with scratch_file(self._scratch_dir) as file:
            found = self._fetch(sha256, file)
            if found != sha256:
                raise StoreError(f"The store's artefact {sha256} has the SHA-256 {found}: it was changed or damaged.")
            yield Path(file.name)

    def remove(self, sha256: str) -> None:
        self._call(self._client.delete_object, sha256)

    def stored(self) -> Iterator[tuple[str, datetime]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._root)
        with _told("the artefacts"):
            for page in pages:
                for entry in page.get("Contents", []):
                    name = str(entry["Key"]).rsplit("/", 1)[-1]
                    if self._key(name) == entry["Key"]:
                        yield name, entry["LastModified"]

    def sweep(self, before: datetime) -> int:
        """Abort multipart uploads: their parts cost room, and no listing of objects shows them."""
        aborted = 0
        for upload in self._unfinished(self._root):
            if upload["Initiated"] < before:
                key, upload_id = upload["Key"], upload["UploadId"]
                with _told(key):
                    try:
                        self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
                    except ClientError as error:
                        if _code(error) in _MISSING:  # it has just ended
                            continue
                        raise
                aborted += 1
        return aborted

    def owner(self) -> str | None:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=f"{self._root}{_OWNER}")
            with closing(answer["Body"]) as body:
                return str(body.read(_OWNER_BYTES), "ascii", "replace").strip()
        except ClientError as error:
            if _code(error) in _MISSING:
                return None
            raise StoreError(f"The store refuses to tell whose it is: {error}") from error
        except (BotoCoreError, *_BROKEN) as error:
            raise StoreError(f"The store cannot be reached: {error}") from error

    def set_owner(self, owner: str) -> None:
        content = f"{owner}\n".encode("ascii")
        key = f"{self._root}{_OWNER}"
        self._call_key(self._client.put_object, key, Body=content, ContentMD5=_md5(content), **_HEADERS)

    def answers(self) -> bool:
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except (BotoCoreError, ClientError):
            return False
        return True

    def _put_in_parts(self, path: Path, size_bytes: int, sha256: str) -> None:
        upload_id, there = self._begun(sha256)
        part_bytes = max(PART_BYTES, -(-size_bytes // PARTS_MAX))
        wrong: set[int] = set()

        def send(number: int) -> dict[str, Any]:
            with path.open("rb", buffering=0) as file:
                content = os.pread(file.fileno(), part_bytes, (number - 1) * part_bytes)
            digest = hashlib.md5(content, usedforsecurity=False)
            if there.get(number) != digest.hexdigest():
                if number in there:
                    wrong.add(number)
                answer = self._call(
                    self._client.upload_part,
                    sha256,
                    UploadId=upload_id,
                    PartNumber=number,
                    Body=content,
                    ContentMD5=_md5(content),
                )
                return {"PartNumber": number, "ETag": answer["ETag"]}
            return {"PartNumber": number, "ETag": f'"{there[number]}"'}

        try:
            with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="artefact-parts") as threads:
                parts = list(threads.map(send, range(1, -(-size_bytes // part_bytes) + 1)))
            self._call(
                self._client.complete_multipart_upload, sha256, UploadId=upload_id, MultipartUpload={"Parts": parts}
            )
        except StoreError:
            if wrong:  # not every store lets a part be replaced: the next attempt begins with none
                self._call(self._client.abort_multipart_upload, sha256, UploadId=upload_id)
            raise

    def _begun(self, sha256: str) -> tuple[str, dict[int, str]]:
        """A multipart upload of this file, broken off or new, and the MD5 of the parts that it has."""
        for upload in self._unfinished(self._key(sha256)):
            parts: dict[int, str] = {}
            with _told(f"the artefact {sha256}"):
                pages = self._client.get_paginator("list_parts").paginate(
                    Bucket=self._bucket, Key=self._key(sha256), UploadId=upload["UploadId"]
                )
                for page in pages:
                    parts |= {int(part["PartNumber"]): str(part["ETag"]).strip('"') for part in page.get("Parts", [])}
            return str(upload["UploadId"]), parts
        begun = self._call(self._client.create_multipart_upload, sha256, **_HEADERS)
        return str(begun["UploadId"]), {}

    def _unfinished(self, prefix: str) -> list[dict[str, Any]]:
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
        with _told("unfinished uploads"):
            try:
                return [upload for page in pages for upload in page.get("Uploads", [])]
            except ClientError as error:  # some stores say so of a bucket that never had any
                if _code(error) in _MISSING:
                    return []
                raise

    def _fetch(self, sha256: str, file: Any) -> str:
        """Write the object into the file; its SHA-256. Goes on where a connection broke."""
        digest = hashlib.sha256()
        for attempt in range(1, _FETCH_ATTEMPTS + 1):
            start = file.tell()
            try:
                answer = self._call(self._client.get_object, sha256, **({"Range": f"bytes={start}-"} if start else {}))
                with closing(answer["Body"]) as body:
                    for block in body.iter_chunks(_READ_BYTES):
                        file.write(block)
                        digest.update(block)
            except _BROKEN as error:
                logger.warning("fetching the artefact %s broke after %d bytes: %s", sha256, file.tell(), error)
                time.sleep(_PAUSE_S * attempt)
                continue
            file.flush()
            return digest.hexdigest()
        raise StoreError(f"The artefact {sha256} cannot be fetched: the connection breaks each time.")

    def _size_of(self, sha256: str) -> int | None:
        try:
            answer = self._client.head_object(Bucket=self._bucket, Key=self._key(sha256))
        except ClientError as error:
            if _code(error) in _MISSING:
                return None
            raise StoreError(f"The store refuses to tell of the artefact {sha256}: {error}") from error
        except BotoCoreError as error:
            raise StoreError(f"The store cannot be reached: {error}") from error
        return int(answer["ContentLength"])

    def _key(self, sha256: str) -> str:
        return f"{self._root}{sha256[:2]}/{sha256}"

    def _call(self, function: Callable[..., Any], sha256: str, **arguments: Any) -> Any:
        return self._call_key(function, self._key(sha256), **arguments)

    def _call_key(self, function: Callable[..., Any], key: str, **arguments: Any) -> Any:
        with _told(key):
            return function(Bucket=self._bucket, Key=key, **arguments)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _told(what: str) -> Iterator[None]:
    """The store's errors, as ours."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise StoreError(f"The store failed at {what}: {error}") from error


def _md5(content: bytes) -> str:
    """As the header Content-MD5 has it."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
