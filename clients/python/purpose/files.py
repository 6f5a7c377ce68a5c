"""Files: uploads and downloads that resume after a break, and messages with attachments."""

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

# Chunks of a file in flight at once.
WINDOW = 8
# Bytes per request; the server returns no more.
CHUNK_BYTES = 64 * 1024
_PUT, _GET, _BEGIN = struct.Struct("<QQ"), struct.Struct("<QQI"), struct.Struct("<IQHH")


class FileBase(CallBase):
    """Sends messages, optionally with files, and reads files."""

    def send(self, chat, content="", nonce=None, *, files=(), reply_to=None, progress=None):
        """Sends a message. Returns its id and time.

        On API 1.0 and newer it is idempotent: the message is stored once, however often the
        connection breaks. Pass your own `nonce` to extend that over a restart.

        files      attachments, up to ten: paths, which are uploaded first, or results of `upload`
        reply_to   the message of the same chat that it answers, or its id
        progress   called as `progress(bytes, size)` during uploads
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
        """Uploads a file to a chat, to be attached by `send` within an hour. Returns a `File`.

        source      a path, bytes, or a seekable binary file
        name        name shown to members; default: that of the path
        media_type  such as "image/png"; default: guessed from the name
        width, height   of an image or video, in pixels
        progress    called as `progress(bytes, size)` as more is stored

        Resumes by itself when the connection breaks. To resume after a restart, see
        `continue_upload`.
        """
        with _opened(source) as (stream, size, path):
            name = name or os.path.basename(path) or "file"
            media_type = media_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
            file = self.begin_file(chat, size, name, media_type, width, height)
            self._put_all(file, stream, progress)
        return file

    def continue_upload(self, file, source, progress=None):
        """Resumes an upload of `begin_file`, also one of an earlier process.

        An upload is gone an hour after its last byte (`no-such-file`)."""
        with _opened(source) as (stream, size, _):
            if size != file.size:
                raise ValueError(f"the source has {size} bytes, and the upload {file.size}")
            self._put_all(file, stream, progress)

    def begin_file(self, chat, size, name, media_type="application/octet-stream", width=0,
                   height=0):
        """Begins an upload without sending bytes. Returns a `File` for `continue_upload`."""
        body = _BEGIN.pack(chat, size, width, height) + text(media_type) + text(name)
        # If its answer is lost, a second upload begins; the server drops the first after an hour.
        file = Reader(self._safe(wire.BEGIN_FILE, body)).u64()
        return File(file, size, width, height, media_type, name)

    def put_file(self, file, offset, data):
        """Stores the next bytes of an upload. Returns the number of bytes stored so far.

        `bad-offset` carries that number, too. Most programs should call `upload`."""
        return Reader(self.request(wire.PUT_FILE, _PUT.pack(file, offset) + data)).u64()

    def end_file(self, file):
        """Abandons an upload. A file in a message is not changed."""
        self._safe(wire.END_FILE, wire.U64.pack(file if isinstance(file, int) else file.id))

    def _put_all(self, file, stream, progress):
        start, stored = stream.seek(0, os.SEEK_CUR), 0
        while stored < file.size:
            stream.seek(start + stored)
            try:
                stored = self._put_run(file, stream, stored, progress)
            except Disconnected as broken:
                # The answer to the next chunk says how much of it arrived.
                self._mend(broken)

    def _put_run(self, file, stream, stored, progress):
        """Sends chunks from an offset on, several in flight.

        Returns the stored size at the end of the file, or the offset that the server expects."""
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
                # The chunks after it are declined, too.
                elsewhere = declined.number if elsewhere is None else elsewhere
                continue
            stored = Reader(pending.body()).u64()
            if progress:
                progress(stored, file.size)
        return stored if elsewhere is None else elsewhere

    # --- downloading ---

    def download(self, file, target=None, progress=None):
        """Downloads a file of a message.

        file      a `File`, as in `Message.files`
        target    a path, a folder (the file keeps its name and replaces nothing), or a binary file
                  to write to; None: return the bytes
        progress  called as `progress(bytes, size)`

        Resumes by itself when the connection breaks. With a path it also resumes after a restart:
        the incomplete file is `TARGET.ID.part`. Returns the path that was written.
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
        """Returns up to 64 KiB of a file; empty at its end."""
        return self._safe(wire.GET_FILE, _GET.pack(file, offset, length))

    def _chunks(self, file, at, progress):
        """Yields the bytes of a file from an offset on, with several requests in flight."""
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
    """Opens a source of bytes: (file, size, path)."""
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
    """A safe file name: a name from the server must not lead out of a folder."""
    forbidden = "/\\:" if os.name == "nt" else "/\\"
    if name in ("", ".", "..") or any(c in forbidden or ord(c) < 32 for c in name):
        raise ProtocolError(f"{name!r} is not the name of a file: choose a path for it")
    return name


def _rename_noclobber(part, path):
    """Renames a file without replacing another: to `name (2).pdf` if needed. Returns the path."""
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
