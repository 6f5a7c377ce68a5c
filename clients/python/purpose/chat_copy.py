"""An exact copy of the user's chats, kept up to date by a client's events."""

from .errors import Declined
from .wire import SHOWN_MAX, Reaction


class ChatCopy:
    """The messages of all chats of a user, as the server has them.

        client = Client(address, from_start=True)
        copy = ChatCopy(client)
        client.login("anna", "correct horse")
        client.run()

    `messages[chat][id]` is a message with its files and reactions, `info[chat]` the latest
    `ChatInfo` of a chat. Both change while `run` or `poll` deliver events. Deleted messages stay,
    with empty content. Create the copy before the session, on a client with `from_start`.

    With a state file the copy is read from the server again when the program starts. Messages that
    were delivered before go to the copy only, not to the callbacks.
    """

    def __init__(self, client):
        if not client._from_start:
            raise ValueError("a copy needs a client with from_start=True")
        self._client = client
        client._has_copy = True
        self.messages, self.info = {}, {}
        client.on("message")(self._message)
        client.on("known")(self._message)
        client.on("changed")(self._fetch)
        client.on("reaction")(self._reaction)
        client.on("own")(self._own)
        client.on("chat")(self._chat)
        client.on("left")(self._left)

    def of(self, chat):
        """Returns the messages of a chat, oldest first."""
        return sorted(self.messages.get(chat, {}).values())

    def _message(self, chat, message):
        # `is_new` is about callbacks; the copy does not keep it.
        message = message._replace(is_new=message.created == message.updated)
        known = self.messages.setdefault(chat, {})
        before = known.get(message.id)
        if before is None or before.updated <= message.updated:
            known[message.id] = message

    def _reaction(self, chat, change):
        known = self.messages.get(chat, {})
        message = known.get(change.message)
        if message is not None and message.updated < change.updated:
            known[change.message] = with_reaction(message, change)

    def _own(self, chat, message, updated):
        self._fetch(chat, message, updated)

    def _fetch(self, chat, message, updated=0):
        """Reads the present message: others may have changed it since."""
        client = self._client
        try:
            if client.is_modern:
                page = client.request_chat_page(chat, message + 1, 1)
            else:
                page = client.request_chat_msg(chat, updated, updated)
        except Declined:
            return  # it is mine no more, as the next events say
        for found in page:
            self._message(chat, found)

    def _chat(self, info):
        self.info[info.id] = info

    def _left(self, chat):
        self.messages.pop(chat, None)
        self.info.pop(chat, None)


def with_reaction(message, change):
    """Returns a message with a reaction added or removed."""
    reactions = list(message.reactions)
    at = next((at for at, one in enumerate(reactions) if one.emoji == change.emoji), None)
    if change.is_on and at is None:
        reactions.append(Reaction(change.emoji, 1, (change.user,)))
    elif at is not None:
        _, count, users = reactions[at]
        if change.is_on:
            users += (change.user,) if len(users) == count < SHOWN_MAX else ()
            count += 1
        else:
            users = tuple(user for user in users if user != change.user)
            count -= 1
        reactions[at : at + 1] = [Reaction(change.emoji, count, users)] if count else []
    return message._replace(updated=change.updated, reactions=tuple(reactions), is_new=False)
