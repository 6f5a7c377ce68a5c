"""Files: uploads and downloads that go on after a cut, and messages that carry files."""

import collections
import contextlib
import io
import mimetypes
import os
import struct

from . import wire
from .calls import CallBase, message_id
from .errors import Declined, Disconnected, ProtocolError
from .wire import File, Reader, text

# Chunks of a file that are under way at once.
WINDOW = 8
# What is asked for at once, and the most that the server gives.
CHUNK_BYTES = 64 * 1024
_PUT, _GET, _BEGIN = struct.Struct("<QQ"), struct.Struct("<QQI"), struct.Struct("<IQHH")


class FileBase(CallBase):
    """Sending messages, with files among them, and reading files."""

    def send(self, chat, content="", nonce=None, *, files=(), reply_to=None, progress=None):
        """Sends a message: its id and time.

        On API 1.0 and newer it is stored once however often the connection breaks; a `nonce` of
        one's own makes that so over a restart, too.

        files      what to attach, up to ten: paths, which are uploaded first, or what `upload` gave
        reply_to   the message of the same chat that it answers, or its id
        progress   called as `progress(bytes, size)` for each file that is uploaded
        """
        if (files or reply_to) and not self.has_files:
            raise ValueError("files and replies need API 1.1")
        ids = []
        for file in files:
            if not isinstance(file, (int, File)):
                file = self.upload(chat, file, progress=progress)
            ids.append(file if isinstance(file, int) else file.id)
        reply_to = message_id(reply_to) if reply_to else None
        return self._send(chat, content, nonce, wire.sent_extras(reply_to, ids))

    send_chat_msg = send

    # --- uploading ---

    def upload(self, chat, source, *, name=None, media_type=None, width=0, height=0,
               progress=None):
        """Uploads a file to a chat, to be attached by `send` within an hour: a `File`.

        source      a path, bytes, or a binary file that can seek
        name        what members see; by default that of the path
        media_type  such as "image/png"; by default what the name says
        width, height   of an image or video, in pixels
        progress    called as `progress(bytes, size)` when more of it is stored

        Goes on by itself when the connection breaks. To go on after a restart, see
        `continue_upload`.
        """
        with _opened(source) as (stream, size, path):
            name = name or os.path.basename(path) or "file"
            media_type = media_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
            file = self.begin_file(chat, size, name, media_type, width, height)
            self._put_all(file, stream, progress)
        return file

    def continue_upload(self, file, source, progress=None):
        """Goes on with an upload that `begin_file` began, in this process or an earlier one, from
        what the server has of it. It is gone an hour after its last byte (`no-such-file`)."""
        with _opened(source) as (stream, size, _):
            if size != file.size:
                raise ValueError(f"the source has {size} bytes, and the upload {file.size}")
            self._put_all(file, stream, progress)

    def begin_file(self, chat, size, name, media_type="application/octet-stream", width=0,
                   height=0):
        """Announces an upload, without a byte of it: a `File`, to be kept for
        `continue_upload`."""
        body = _BEGIN.pack(chat, size, width, height) + text(media_type) + text(name)
        # When its answer is lost, a second one is begun: the server ends the first in an hour.
        file = Reader(self._safe(wire.BEGIN_FILE, body)).u64()
        return File(file, size, width, height, media_type, name)

    def put_file(self, file, offset, data):
        """Stores the next bytes of an upload: how many are stored now. `bad-offset` carries that
        number, too. For most, `upload` is the call to use."""
        return Reader(self.request(wire.PUT_FILE, _PUT.pack(file, offset) + data)).u64()

    def end_file(self, file):
        """Gives up an upload; a file that is in a message stays."""
        self._safe(wire.END_FILE, wire.U64.pack(file if isinstance(file, int) else file.id))

    def _put_all(self, file, stream, progress):
        start, stored = stream.seek(0, os.SEEK_CUR), 0
        while stored < file.size:
            stream.seek(start + stored)
            try:
                stored = self._put_run(file, stream, stored, progress)
            except Disconnected as broken:
                # How much of it arrived is in the server's answer to the next chunk.
                self._mend(broken)

    def _put_run(self, file, stream, stored, progress):
        """Sends chunks from an offset on, several at a time. Gives what is stored at the end of
        the file, or where the server says that it stands elsewhere."""
        chunk_bytes = min(self.server.max_body - _PUT.size, CHUNK_BYTES)
        window, sent, elsewhere = collections.deque(), stored, None
        while window or (sent < file.size and elsewhere is None):
            if sent < file.size and elsewhere is None and len(window) < WINDOW:
                data = stream.read(min(chunk_bytes, file.size - sent))
                if not data:
                    raise ValueError("the source is shorter than what was announced")
                window.append(self._ask(wire.PUT_FILE, _PUT.pack(file.id, sent) + data))
                sent += len(data)
                continue
            pending = window.popleft()
            try:
                self._await(pending)
            except Declined as declined:
                if declined.code != "bad-offset" or declined.number == stored:
                    raise
                # The chunks behind it are declined, too.
                elsewhere = declined.number if elsewhere is None else elsewhere
                continue
            stored = Reader(pending.body()).u64()
            if progress:
                progress(stored, file.size)
        return stored if elsewhere is None else elsewhere

    # --- downloading ---

    def download(self, file, target=None, progress=None):
        """Reads a file of a message.

        file      a `File`, as `Message.files` has them
        target    a path, a folder (the file gets its own name, and replaces nothing), or a binary
                  file to write to; None: returns the bytes
        progress  called as `progress(bytes, size)`

        Goes on by itself when the connection breaks. With a path it goes on after a restart, too:
        what came is in `TARGET.ID.part` until it is whole. Returns the path that it wrote.
        """
        if target is None:
            return b"".join(self._chunks(file, 0, progress))
        if hasattr(target, "write"):
            for chunk in self._chunks(file, 0, progress):
                target.write(chunk)
            return None
        in_folder = os.path.isdir(target)
        path = os.path.join(target, _own_name(file.name)) if in_folder else os.fspath(target)
        part = f"{path}.{file.id}.part"
        with open(part, "ab") as stream:
            found = stream.seek(0, os.SEEK_END)
            if found > file.size:
                stream.truncate(0)
                found = 0
            for chunk in self._chunks(file, found, progress):
                stream.write(chunk)
        if in_folder:
            return _rename_noclobber(part, path)
        os.replace(part, path)
        return path

    def get_file(self, file, offset, length=CHUNK_BYTES):
        """Bytes of a file: up to 64 KiB, and none at its end."""
        return self._safe(wire.GET_FILE, _GET.pack(file, offset, length))

    def _chunks(self, file, at, progress):
        """The bytes of a file from an offset on, several chunks asked for at a time."""
        while at < file.size:
            try:
                for chunk in self._chunk_run(file, at):
                    at += len(chunk)
                    yield chunk
                    if progress:
                        progress(at, file.size)
            except Disconnected as broken:
                self._mend(broken)

    def _chunk_run(self, file, at):
        window, asked = collections.deque(), at
        while window or asked < file.size:
            if asked < file.size and len(window) < WINDOW:
                length = min(CHUNK_BYTES, file.size - asked)
                body = _GET.pack(file.id, asked, length)
                window.append((length, self._ask(wire.GET_FILE, body)))
                asked += length
                continue
            length, pending = window.popleft()
            self._await(pending)
            chunk = pending.body()
            if len(chunk) != length:
                raise ProtocolError("a file is shorter than its message says")
            yield chunk


@contextlib.contextmanager
def _opened(source):
    """A source of bytes as (file, size, path)."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source), memoryview(source).nbytes, ""
    elif hasattr(source, "read"):
        start = source.seek(0, os.SEEK_CUR)
        size = source.seek(0, os.SEEK_END) - start
        source.seek(start)
        name = getattr(source, "name", "")
        yield source, size, name if isinstance(name, str) else ""
    else:
        path = os.fspath(source)
        with open(path, "rb") as stream:
            yield stream, os.fstat(stream.fileno()).st_size, path


def _own_name(name):
    """The name of a file, which must not lead out of a folder, whatever a server sends."""
    forbidden = "/\\:" if os.name == "nt" else "/\\"
    if name in ("", ".", "..") or any(c in forbidden or ord(c) < 32 for c in name):
        raise ProtocolError(f"{name!r} is not the name of a file: choose a path for it")
    return name


def _rename_noclobber(part, path):
    """Gives a file its name, or the next that is free: `name (2).pdf`. Gives that path."""
    stem, ending = os.path.splitext(path)
    names = [path] + [f"{stem} ({number}){ending}" for number in range(2, 10_000)]
    for name in names:
        try:
            with open(name, "xb"):
                pass
        except FileExistsError:
            continue
        os.replace(part, name)
        return name
    raise FileExistsError(f"{path}: there are too many files of that name")
