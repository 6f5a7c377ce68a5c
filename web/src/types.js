/**
 * Types shared by the core (store, sync, link) and the interface (view, ui).
 *
 * Nothing here exists at run time: import these with `@typedef {import('./types.js').Chat} Chat`.
 * Ids and times are Numbers outside wire.js: microseconds since 1970 stay exact until 2255.
 */

/**
 * A value that effects follow; view.js makes them.
 * @template T
 * @typedef {object} Signal
 * @property {T} value read inside an effect, it makes the effect run again when it changes
 * @property {() => T} peek the value without following it
 */

/**
 * The screen to show.
 * - `starting`: storage and session are being read; show nothing yet
 * - `welcome`: a server without users that needs an invite, and none is in the address
 * - `login`, `register`, `reset`: the forms; `store.form` holds what they start with
 * - `ready`: logged in; the list of chats
 * @typedef {'starting'|'welcome'|'login'|'register'|'reset'|'ready'} Phase
 */

/** @typedef {'connecting'|'online'|'offline'} ConnectionState */

/** @typedef {{id: number, name: string, operator: boolean}} Me */

/**
 * The server's answer to HELLO; known after the first connection.
 * @typedef {object} Server
 * @property {string} name
 * @property {string} version
 * @property {{major: number, minor: number}} api
 * @property {number} maxContent bytes of UTF-8 in a message
 * @property {number} maxFile bytes of a file; 0: no files
 * @property {string} pushKey base64url; empty: no pushes
 * @property {'closed'|'invite'|'open'} registration
 */

/**
 * A form's initial values, and why it is shown.
 * @typedef {object} Form
 * @property {string} [login]
 * @property {string} [invite]
 * @property {string} [code]
 * @property {string} [link] the part of an address that it came by
 * @property {'ended'|'reset-done'|''} [why] `ended`: the session was ended elsewhere
 */

/**
 * @typedef {object} Chat
 * @property {number} id
 * @property {'group'|'direct'} kind
 * @property {string} title what to show: the title, else the name; a direct chat: the person
 * @property {string} name empty for a direct chat
 * @property {string} topic the title as it is set; may be empty
 * @property {boolean} isMember
 * @property {boolean} isAdmin
 * @property {boolean} isClosed
 * @property {boolean} hasPassword
 * @property {number} members
 * @property {number} lastTime of the newest message; 0: none
 * @property {LastMessage|null} lastMessage
 * @property {number} seen my marker: messages created up to this time are seen
 * @property {number} unread counted up to 1000
 * @property {0|1|2} notify 0 everything, 1 mentions and answers, 2 nothing
 * @property {string} draft
 * @property {{id: number, online: boolean, seen: number, disabled?: boolean}|null} peer of a direct
 *   chat, once known
 * @property {string[]} typing names of who is typing now
 */

/**
 * @typedef {object} LastMessage
 * @property {number} time
 * @property {string} text
 * @property {number} sender user id
 * @property {string} senderName
 * @property {boolean} deleted
 * @property {string[]} files names
 * @property {'stored'|'sending'|'failed'} state
 */

/**
 * @typedef {{id: number, name: string, online: boolean, operator: boolean, bot: boolean,
 *   disabled: boolean}} User
 */

/**
 * @typedef {{id: number, name: string, online: boolean, admin: boolean, banned: boolean,
 *   seen: number}} Member
 */

/**
 * @typedef {{id: number, size: number, width: number, height: number, type: string,
 *   name: string}} FileInfo
 */

/** @typedef {{emoji: string, count: number, mine: boolean, users: number[]}} Reaction */

/**
 * @typedef {{id: number, sender: number, senderName: string, text: string, deleted: boolean}} Quote
 */

/**
 * @typedef {object} Message
 * @property {number} id 0 while it is not stored
 * @property {string} [localId] of a message that this browser sent; stays when it is stored
 * @property {number} chat
 * @property {number} sender
 * @property {string} senderName empty until it is known
 * @property {number} created microseconds; of a message not stored: by this browser's clock
 * @property {number} updated
 * @property {boolean} edited
 * @property {boolean} deleted
 * @property {string} text
 * @property {Quote} [reply] text is empty until the quoted message is loaded
 * @property {FileInfo[]} files
 * @property {Reaction[]} reactions
 * @property {'stored'|'sending'|'failed'} state
 * @property {string} [reason] why it failed: words of the server
 * @property {string} [code] the code of the DECLINED
 * @property {boolean} mentionsMe
 */

/**
 * A window of a chat's messages. The items are contiguous and ascending; what is not stored yet
 * comes last. A timeline stays the same object as long as the user does.
 * @typedef {object} Timeline
 * @property {Signal<Message[]>} items
 * @property {Signal<boolean>} atStart nothing older is left to load
 * @property {Signal<boolean>} atEnd nothing newer is left to load
 * @property {Signal<boolean>} loaded false until the first items are there
 * @property {Signal<boolean>} ready whether `firstUnread` is known: only then the view is placed
 * @property {Signal<number>} firstUnread id of the first unread message when the chat was opened;
 *   0: none
 * @property {() => Promise<void>} loadOlder
 * @property {() => Promise<void>} loadNewer
 * @property {(messageId: number) => Promise<void>} loadAround replaces the window if it has to
 * @property {() => Promise<void>} jumpToNewest replaces the window if it has to
 */

/** @typedef {{chat: number, message: Message}} SearchHit */

/**
 * @typedef {{id: number, current: boolean, attached: boolean, created: number, used: number,
 *   address: string}} Session
 */

/**
 * @typedef {{hint: string, registers: boolean, usesLeft: number, expires: number,
 *   created: number, creator: number, creatorName: string, chat: number}} Invite
 */

/**
 * @typedef {{code: string, text: string,
 *   number: number}} Failure what actions reject with: the code of the DECLINED, its words,
 *   the number in them (0: none). Code `offline`: there is no connection
 */

/**
 * The actions of the interface. All are asynchronous and reject with a Failure.
 * @typedef {object} Actions
 * @property {(name: string, password: string) => Promise<void>} login
 * @property {(name: string, password: string,
 *   invite?: string) => Promise<void>} register logs in, too
 * @property {(login: string, code: string,
 *   password: string) => Promise<void>} setPassword with a reset code; leads to `login`
 * @property {() => Promise<void>} logout
 * @property {(phase: 'login'|'register') => void} showForm switches between the forms
 * @property {(chatId: number) => Promise<void>} openChat
 * @property {() => void} closeChat
 * @property {(chatId: number, text: string, extra?: {replyTo?: number,
 *   files?: FileInfo[]}) => Promise<void>} send resolves when it is in the queue
 * @property {(localId: string) => Promise<void>} retry
 * @property {(localId: string) => Promise<void>} discard
 * @property {(chatId: number, id: number, text: string) => Promise<void>} edit
 * @property {(chatId: number, id: number) => Promise<void>} remove
 * @property {(chatId: number, id: number, emoji: string, on: boolean) => Promise<void>} react
 * @property {(chatId: number, id: number) => Promise<{user: number, name: string,
 *   emoji: string}[]>} reactions
 * @property {(chatId: number, time: number) => Promise<void>} markSeen
 * @property {(chatId: number) => void} typing may be called for every key
 * @property {() => Promise<void>} online settles with the next attached session
 * @property {(chatId: number, text: string) => Promise<void>} setDraft
 * @property {(name: string, password?: string, closed?: boolean) => Promise<number>} createChat
 * @property {(prefix: string) => Promise<Chat[]>} findChats
 * @property {(prefix: string) => Promise<User[]>} findUsers
 * @property {(chatId: number, password?: string) => Promise<void>} joinChat
 * @property {(userId: number) => Promise<number>} startChat
 * @property {(chatId: number) => Promise<void>} leaveChat
 * @property {(chatId: number) => Promise<void>} deleteChat
 * @property {(chatId: number, name: string) => Promise<void>} renameChat
 * @property {(chatId: number, title: string) => Promise<void>} setTitle
 * @property {(chatId: number, password: string) => Promise<void>} setChatPassword empty: none is
 *   needed any more
 * @property {(chatId: number, closed: boolean) => Promise<void>} setClosed
 * @property {(chatId: number, notify: 0|1|2) => Promise<void>} setNotify
 * @property {(chatId: number, userId: number, admin: boolean) => Promise<void>} setAdmin
 * @property {(chatId: number, userId: number, banned: boolean) => Promise<void>} setBan
 * @property {(chatId: number, userId: number) => Promise<void>} addMember
 * @property {(chatId: number) => Promise<Member[]>} members
 * @property {(chatId: number, query: string) => Promise<SearchHit[]>} search chat 0: all chats
 * @property {(what: {chat?: number, registers?: boolean, uses?: number,
 *   days?: number}) => Promise<{code: string, link: string}>} createInvite
 * @property {(chatId: number) => Promise<Invite[]>} invites chat 0: all, for operators
 * @property {(hint: string) => Promise<void>} endInvite
 * @property {(code: string) => Promise<number>} useInvite resolves to the chat
 * @property {(userId: number) => Promise<{code: string, link: string,
 *   expires: number}>} resetPassword
 * @property {(userId: number, disabled: boolean) => Promise<void>} setUserDisabled
 * @property {() => Promise<Session[]>} sessions
 * @property {(id: number) => Promise<void>} endSession
 * @property {(old: string, password: string) => Promise<void>} changePassword
 * @property {(subscription: {endpoint: string, p256dh: Uint8Array,
 *   auth: Uint8Array}|null) => Promise<void>} subscribePush
 * @property {(chatId: number, blob: Blob, info: {name: string, type: string, width: number,
 *   height: number}, onProgress?: (sent: number) => void,
 *   signal?: AbortSignal) => Promise<FileInfo>} upload goes on over reconnects
 * @property {(file: Blob, name: string) => Promise<{blob: Blob, name: string, type: string,
 *   width: number, height: number}>} prepare draws a photo anew at up to 1600 px; other files stay
 * @property {(file: FileInfo) => Promise<string>} fileUrl a blob: URL of a raster image,
 *   kept; rejects for anything else
 * @property {(file: FileInfo, onProgress?: (got: number) => void) => Promise<void>} download saves
 *   it
 * @property {() => Promise<void>} reload loads the new version
 * @property {() => void} reconnect tries again at once
 */

/**
 * @typedef {object} Store
 * @property {Signal<Phase>} phase
 * @property {Signal<Form>} form
 * @property {Signal<ConnectionState>} connection
 * @property {Signal<Me|null>} me
 * @property {Signal<Server|null>} server
 * @property {Signal<Chat[]>} chats newest first
 * @property {Signal<number>} open the chat that is open; 0: none
 * @property {Signal<Map<number, User>>} users
 * @property {Signal<string|null>} notice one line for the person; a key of lang/*.js; set it to
 *   null to close it
 * @property {Signal<boolean|'old'>} update a new version waits; `old`: the server has this one no more
 * @property {Actions} actions
 * @property {(chatId: number) => Timeline} timeline
 */

export {};
