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
# Files of a message, at most.
FILES_MAX = 10
# Bytes of a file's name, as most file systems limit them, and of its ending.
NAME_BYTES_MAX, ENDING_BYTES_MAX = 255, 32
_PUT, _GET, _BEGIN = struct.Struct("<QQ"), struct.Struct("<QQI"), struct.Struct("<IQHH")


class FileBase(CallBase):
    """Sends messages, optionally with files, and reads files."""

    def send(self, chat, content="", nonce=None, *, files=(), reply_to=None, progress=None):
        """Sends a message. Returns its id and time.

        On API 1.0 and newer it is idempotent: the message is stored once, however often the
        connection breaks. Pass your own `nonce` to extend that over a restart.

        files      attachments, up to ten: sources as `upload` accepts them, which are uploaded
                   first, or results of `upload`; a single one needs no list
        reply_to   the message of the same chat that it answers, or its id
        progress   called as `progress(bytes, size)` during uploads
        """
        if (files or reply_to) and not self.has_files:
            raise ValueError("files and replies need API 1.1")
        files, ids = _each_file(files), []
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
            self._put_all(file, stream, progress, is_new=True)
        return file

    def continue_upload(self, file, source, progress=None):
        """Resumes an upload of `begin_file`, also one of an earlier process.

        An upload is gone an hour after its last byte (`no-such-file`)."""
        with _opened(source) as (stream, size, _):
            if size != file.size:
                raise ValueError(f"the source has {size} bytes, and the upload {file.size}")
            self._put_all(file, stream, progress, is_new=False)

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
        connections = self._connections
        try:
            self._safe(wire.END_FILE, wire.U64.pack(file if isinstance(file, int) else file.id))
        except Declined as declined:
            # After a break: the first request has ended it, and its answer was lost.
            if declined.code != "no-such-file" or self._connections == connections:
                raise

    def _put_all(self, file, stream, progress, is_new):
        # What is stored of an upload that is not new is asked for with its next byte: if it is
        # stored already, `bad-offset` says how much is.
        start, stored, breaks = stream.seek(0, os.SEEK_CUR), 0, 0

        def note(now_stored, size):
            nonlocal stored, breaks
            stored, breaks = now_stored, 0
            if progress:
                progress(stored, size)

        while stored < file.size:
            try:
                if not is_new:
                    stored = self._put_run(file, stream, start, stored, note, 1)
                is_new = True
                stored = self._put_run(file, stream, start, stored, note)
            except Disconnected as broken:
                is_new, breaks = False, breaks + 1
                self._mend_request(broken, breaks)

    def _put_run(self, file, stream, start, stored, progress, limit=None):
        """Sends chunks from an offset on, several in flight; at most `limit` bytes if given.

        Returns the stored size after them, or the offset that the server expects."""
        chunk_bytes = min(self.server.max_body - _PUT.size, CHUNK_BYTES)
        window, sent, elsewhere = collections.deque(), stored, None
        end = file.size if limit is None else min(stored + limit, file.size)
        stream.seek(start + stored)
        while window or (sent < end and elsewhere is None):
            if sent < end and elsewhere is None and len(window) < WINDOW:
                data = stream.read(min(chunk_bytes, end - sent))
                if not data:
                    raise ValueError("the source is shorter than what was announced")
                window.append(self._ask(wire.PUT_FILE, _PUT.pack(file.id, sent) + data))
                sent += len(data)
                continue
            pending = window.popleft()
            try:
                self._await(pending)
            except Declined as declined:
                number = declined.number
                if declined.code != "bad-offset" or number in (None, stored) or number > file.size:
                    raise
                # The chunks after it are declined, too.
                elsewhere = number if elsewhere is None else elsewhere
                continue
            before, stored = stored, Reader(pending.body()).u64()
            if not before < stored <= sent:
                raise ProtocolError("a chunk of a file that was stored elsewhere")
            progress(stored, file.size)
        return stored if elsewhere is None else elsewhere

    # --- downloading ---

    def download(self, file, target=None, progress=None):
        """Downloads a file of a message.

        file      a `File`, as in `Message.files`
        target    a path, a folder (the file keeps its name and replaces nothing), or a binary file
                  to write to; None: return the bytes. In a folder, a name that is too long for
                  the file system is cut
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
        path, in_folder = os.fsdecode(target), os.path.isdir(target)
        if in_folder:
            path = os.path.join(path, local_name(file))
        folder, name = os.path.split(path)
        ending = f".{file.id}.part"
        part = os.path.join(folder, _shortened(name, NAME_BYTES_MAX - len(ending)) + ending)
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
        breaks = 0
        while at < file.size:
            try:
                for chunk in self._chunk_run(file, at):
                    at, breaks = at + len(chunk), 0
                    yield chunk
                    if progress:
                        progress(at, file.size)
            except Disconnected as broken:
                breaks += 1
                self._mend_request(broken, breaks)

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


def _each_file(files):
    """The attachments as a list; a single one, too, of which many kinds are iterable."""
    single = (str, bytes, bytearray, memoryview, os.PathLike, File, int)
    if isinstance(files, single) or hasattr(files, "read"):
        files = [files] if files else []
    files = list(files)
    if len(files) > FILES_MAX:
        raise ValueError(f"a message has at most {FILES_MAX} files")
    return files


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


def local_name(file, prefix=""):
    """Returns a name under which a folder can hold a `File`: its own, or that cut to fit.

    With `f"{file.id}-"` as `prefix`, no two files have the same."""
    forbidden = "/\\:" if os.name == "nt" else "/\\"
    if file.name in ("", ".", "..") or any(c in forbidden or ord(c) < 32 for c in file.name):
        # It must not lead out of the folder.
        raise ProtocolError(f"{file.name!r} is not the name of a file: choose a path for it")
    # The incomplete file has this name and more; so has one of several with the same name.
    return _shortened(prefix + file.name, NAME_BYTES_MAX - len(f".{file.id}.part"))


def _shortened(name, bytes_max):
    """A name of at most `bytes_max` bytes; its ending is kept, unless that is long itself."""
    if len(os.fsencode(name)) <= bytes_max:
        return name
    stem, ending = os.path.splitext(name)
    ending = _cut(ending, ENDING_BYTES_MAX)
    return _cut(stem, bytes_max - len(os.fsencode(ending))) + ending


def _cut(name, bytes_max):
    while len(os.fsencode(name)) > bytes_max:
        name = name[:-1]
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
