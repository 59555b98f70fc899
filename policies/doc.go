// Package policies is the language that everyone in Sallyport speaks: the signed documents, what the key-use log records about
// them, and the pure decision whether a key may be used.
//
// An owner signs manifests (what their items are), grants (who may read) and revocations; these are links of one chain per
// owner, so that none can be held back without stopping all later ones and none replayed. A reader signs relationships and
// sessions, and with a session's key read requests. A vault is known by a vault document that its ceremony signed; it answers
// every acceptance with a receipt and every read with an answer that only the reader can open.
//
// The normal path of a receiver: envelope.Parse, then [OpenIdentity], [OpenVault] or [Open] with the key of
// the identity that the document must be from. What comes out has been verified in form and signature. Whether it is the next
// of its chain ([Link.Follows]), still in its time ([Session.Live], [ReadRequest.Live]) and permitted ([Check]) is asked
// next, each by a function that does no I/O and reads no clock: what they say can be re-justified years later.
//
// What is refused has a name: [ErrMalformed], [ErrSignature], [ErrProof], [ErrPin] for bytes that are wrong whoever sent
// them, a [Code] for the answer to a well-formed request. The codes are part of the protocol.
//
// The package keeps no state, opens no file or connection, and holds no key.
package policies
