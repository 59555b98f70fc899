package policies

import (
	"errors"

	"github.com/sallyport/sallyport/policies/envelope"
)

// What can be wrong with bytes from outside, whoever sent them. The answers to an honest request are [Code] values.
var (
	// ErrMalformed: the bytes are not what their type demands.
	ErrMalformed = envelope.ErrMalformed
	// ErrSignature: a signature does not verify under the key it must be made with.
	ErrSignature = envelope.ErrSignature
	// ErrProof: a Merkle proof does not lead to the root.
	ErrProof = errors.New("proof does not verify")
	// ErrPin: a vault document is not the one this client pinned, or is older than one seen before.
	ErrPin = errors.New("not the pinned vault")
)

// Code is why a vault or a storefront did not do what it was asked: a stable name that goes over the wire, into the
// key-use log and into errors.Is. The text after each code is what to do about it.
type Code string

// The codes. They are part of the protocol: one may be added, none may change its meaning.
const (
	CodeMalformed    Code = "malformed"      // the request is not well formed; correct it
	CodeTooLarge     Code = "too_large"      // a body, value or batch over its bound; send less
	CodeSignature    Code = "bad_signature"  // a signature or proof of identity fails
	CodeNotFound     Code = "not_found"      // no such thing, or not for this caller
	CodeWrongVault   Code = "wrong_vault"    // the document is addressed to another vault
	CodeExists       Code = "exists"         // an id that is accepted once only was used before
	CodeUnknown      Code = "unknown_signer" // the signer's identity is not enrolled; enrol it first
	CodeUnauthorized Code = "unauthorized"   // no login, an expired one, or one of somebody else; log in again
	CodeChain        Code = "chain_moved"    // not the next document of the owner's chain; fetch the chain and rebase
	CodeHeadMoved    Code = "head_moved"     // the proof is under an older head; ask again
	CodeBehind       Code = "storefront_behind"
	CodeSession      Code = "unknown_session" // no such session here, or an expired one; open a new one
	CodeReplay       Code = "replayed"        // the nonce was used in this session before
	CodeExpired      Code = "request_expired" // the request is older or younger than it may be; check the clock
	CodeNoGrant      Code = "no_grant"        // there is no grant for this reader, owner, field, epoch and author
	CodeRevoked      Code = "grant_revoked"
	CodeGrantExpired Code = "grant_expired"
	CodeNotYet       Code = "grant_not_yet_valid"
	CodeLimit        Code = "limit_reached" // the grant's reads for this UTC day are used up
	CodePurpose      Code = "wrong_purpose" // the request names another purpose than the grant
	CodeLeaf         Code = "wrong_leaf"    // the leaf is of another owner, field, epoch or author than the grant
	CodeProof        Code = "bad_proof"     // the leaf is not under the head
	CodePoint        Code = "bad_point"     // the capsule's point is not on the curve
	CodeImport       Code = "import_refused"
	CodeCustody      Code = "unknown_custody" // the vault does not offer this custody, import key or path
	CodeGuardrail    Code = "guardrail"       // the operator's rules do not permit this use, although its owner granted it
	CodeRateLimited  Code = "rate_limited"    // wait and try again
	CodeUnavailable  Code = "unavailable"     // the part asked for is not reachable now; try again
	CodeLogStopped   Code = "log_stopped"     // the key-use log cannot record, so no key is used
	CodeLogFull      Code = "log_full"        // the same, because only the reserve is left on its disk; it goes on when there is room
	CodeClock        Code = "clock_stepped"   // the same, because the vault's clock stepped or is earlier than the newest entry
	CodeTokenFailure Code = "token_failure"   // the token did not do it; the operator must look
	CodeInternal     Code = "internal"
	CodeUnchanged    Code = "unchanged" // an outcome, not a refusal: the reader has this version already
	CodeReleased     Code = "released"  // an outcome: the capsule was re-encrypted
	CodeAccepted     Code = "accepted"  // an outcome: the document is in force
	CodeKeyMissing   Code = "key_missing"
	CodeClosed       Code = "account_closed" // the owner closed their account, for ever
	CodePartyClosed  Code = "party_closed"   // the reader or writer to whom an owner's document gives something closed their account
	CodeAuditor      Code = "not_an_auditor" // the vault's configuration does not list the signer as an auditor
	// Messages and consent. All but the first are said by the client of one party about what the other sent.
	CodeMailboxFull    Code = "mailbox_full"         // too many messages wait for the receiver; send again later
	CodeSender         Code = "unknown_sender"       // the sender of a message is not a contact, or is blocked
	CodeNotAsked       Code = "not_asked"            // it answers a request that this party did not make, or that is not for it
	CodeAnswered       Code = "already_answered"     // a request is answered once
	CodeConsentExpired Code = "consent_expired"      // the request was not answered in time; the asking party asks again
	CodeTooWide        Code = "wider_than_asked"     // the answer names a field that the request does not ask for
	CodeRequired       Code = "required_denied"      // the answer grants something and denies a field that the request needs
	CodeAskedAgain     Code = "asked_again_too_soon" // the person denied this lately, or took it back; wait
	CodeInvitation     Code = "invitation_void"      // not an invitation of this business, an expired one, or one that somebody else used
	CodeNotInvited     Code = "not_invited"          // the owner let this reader in by an invitation, and the request is by none or another
	// Writers.
	CodeNoWriteGrant Code = "no_write_grant" // the owner did not make this author one, or not of this field
	CodeWriteEnded   Code = "write_ended"    // the author's permission to write is over
	// The identity registry, and deposits of a source that a requester asked for.
	CodeNotIntroduced       Code = "not_introduced"        // that party is looked up by introduction only, and this is none to it for the caller
	CodeIntroducer          Code = "not_an_introducer"     // the introduction is signed by one who may not introduce that party
	CodeIntroductionExpired Code = "introduction_expired"  // the introduction's time is over
	CodeIntroductionUsed    Code = "introduction_used"     // the introduction was shown before, and serves once
	CodeSpecification       Code = "specification_altered" // what the customer answered is not what the requester signed
	CodeForwarder           Code = "not_the_requester"     // the order was forwarded by another than it names
	CodeOrderUsed           Code = "order_used"            // the order, or this field of it, was carried out before
	CodeSource              Code = "not_the_source"        // the attestation is not of the source that was asked for
	CodeAttestation         Code = "attestation_mismatch"  // the attestation is for another value, field, person or specification, or there is none

	// Succession of identities.
	CodeKeyReplaced           Code = "key_replaced"           // signed with a key that another took the place of; use the new one
	CodeSuccessionOld         Code = "succession_old"         // not the next document of the identity: one like it came before
	CodeSuccessionPending     Code = "succession_pending"     // announced, and its 72 hours are not over; or another one is announced
	CodeSuccessionUnannounced Code = "succession_unannounced" // without the recovery key it must be announced first
	CodeSuspended             Code = "suspended"              // the reader ended all grants that it had; owners grant anew
	CodeRecovery              Code = "not_the_recovery_key"   // another recovery key than the identity names
	// Freezing, for a person who lost everything.
	CodeFrozen   Code = "frozen"          // two operators stopped all reading of this owner; the owner ends that
	CodeOperator Code = "not_an_operator" // the vault's configuration does not list a signer as an operator

	// Names of businesses.
	CodeVoucher    Code = "voucher_forged"    // a voucher that the vault's ceremony key did not sign, or of another name than the identity has
	CodeVoucherOld Code = "voucher_old"       // a newer voucher for the identity came before
	CodeRules      Code = "guardrails_forged" // guardrails that the vault's ceremony key did not sign
	CodeRulesOld   Code = "guardrails_old"    // newer guardrails came before
	CodeLookAlike  Code = "look_alike"        // the name looks like one of somebody else that is verified
	CodeDomain     Code = "domain_unproven"   // the domain does not say that the identity is its own
	// The key server, which gives a new device its profile.
	CodePasswordWrong  Code = "password_wrong"  // not the password of this account, or there is no such account
	CodePasswordLocked Code = "password_locked" // ten passwords were tried; a device that works, or the recovery sheet, begins anew
	CodeKitWrong       Code = "kit_wrong"       // not the recovery sheet of this account, or there is no such account
	CodeOutdated       Code = "outdated"        // another device changed it meanwhile; fetch it and decide again
)

// Error makes every Code a sentinel error.
func (c Code) Error() string {
	if text, ok := codeText[c]; ok {
		return text
	}
	return "refused: " + string(c)
}

var codeText = map[Code]string{
	CodeMalformed:      "the request is not well formed",
	CodeTooLarge:       "the request is larger than allowed",
	CodeSignature:      "a signature does not verify",
	CodeNotFound:       "there is no such thing here",
	CodeWrongVault:     "the document is addressed to another vault",
	CodeExists:         "this id was used before and is accepted only once",
	CodeUnknown:        "the signer is not enrolled; enrol the identity first",
	CodeUnauthorized:   "not logged in, or not as the one this belongs to; log in again",
	CodeChain:          "another document came first; fetch the chain and sign again on top of it",
	CodeHeadMoved:      "something newer was published meanwhile; ask again",
	CodeBehind:         "the storefront has lost data that the vault knows of; the owner must publish again",
	CodeSession:        "the session is unknown or has ended; open a new one",
	CodeReplay:         "this request was sent before",
	CodeExpired:        "the request is outside its time; check the clock and sign a new one",
	CodeNoGrant:        "there is no grant for this reader and field",
	CodeRevoked:        "the grant was revoked",
	CodeGrantExpired:   "the grant has expired",
	CodeNotYet:         "the grant is not valid yet",
	CodeLimit:          "the grant's reads for today are used up; try again after midnight UTC",
	CodePurpose:        "the grant is for another purpose",
	CodeLeaf:           "the item is not the one that the grant names",
	CodeProof:          "the item is not part of what the owner published",
	CodePoint:          "the capsule is not a point of the curve",
	CodeImport:         "the token refused the re-encryption key",
	CodeCustody:        "the vault does not offer this custody, import key or path",
	CodeGuardrail:      "the operator's rules do not allow this",
	CodeRateLimited:    "too many requests; wait and try again",
	CodeUnavailable:    "a part that this needs does not answer; try again",
	CodeLogStopped:     "the key-use log cannot record, so no key is used; the operator must look",
	CodeLogFull:        "only the reserve is left on the disk of the key-use log, so no key is used; the operator must make room",
	CodeClock:          "the vault's clock stepped, so no key is used; the operator must set it right and start the vault again",
	CodeTokenFailure:   "the token did not carry this out; the operator must look",
	CodeInternal:       "an error on the other side; try again, and report it if it stays",
	CodeUnchanged:      "nothing newer than what the reader has",
	CodeReleased:       "released",
	CodeAccepted:       "accepted",
	CodeClosed:         "the account was closed by its owner, for ever",
	CodePartyClosed:    "the other side closed its account, for ever",
	CodeAuditor:        "the vault does not list this identity as an auditor; its operator does",
	CodeMailboxFull:    "too many messages wait for the receiver; send again later",
	CodeSender:         "the sender is not a contact, or is blocked",
	CodeNotAsked:       "there is no such request between these two parties",
	CodeAnswered:       "the request was answered before, and is answered once",
	CodeConsentExpired: "the request was not answered in time; whoever asked must ask again",
	CodeTooWide:        "the answer names a field that was not asked for",
	CodeRequired:       "the answer grants something, but not all that the request needs; grant that too, or deny everything",
	CodeAskedAgain:     "the person denied this lately, or took it back; ask again later",
	CodeInvitation:     "the invitation is not one of this business, has expired, or was used by somebody else",
	CodeNotInvited:     "the request does not name the invitation by which the person let the reader in",
	CodePasswordWrong:  "not the password of this account",
	CodePasswordLocked: "ten passwords were tried, so none is taken any more; use a device that works, or the recovery sheet",
	CodeKitWrong:       "not the recovery sheet of this account",
	CodeOutdated:       "another device changed this meanwhile; fetch it and decide again",
	CodeKeyMissing:     "the token does not hold the key of this grant; the owner must grant again",
	CodeNoWriteGrant:   "the owner did not let this author write that",
	CodeWriteEnded:     "the permission to write is over",
	CodeNotIntroduced:  "that party is looked up by introduction only, and this is no introduction of it to the caller",
	CodeIntroducer:     "the introduction is of somebody who may not introduce that party",
	CodeSpecification:  "what was answered is not what the requester asked for",
	CodeForwarder:      "the order came from another than it names",
	CodeOrderUsed:      "the order was carried out before, and serves once",
	CodeSource:         "the attestation is not of the source that was asked for",
	CodeAttestation:    "no attestation fits this value",

	CodeIntroductionExpired: "the time of the introduction is over; ask for a new one",
	CodeIntroductionUsed:    "the introduction was used before, and serves once",

	CodeKeyReplaced:           "the key that signed this was replaced by a new one",
	CodeSuccessionOld:         "the identity has a newer document than the one this follows",
	CodeSuccessionPending:     "a change of keys without the recovery key takes effect 72 hours after it was announced; until then it can be cancelled",
	CodeSuccessionUnannounced: "a change of keys without the recovery key must be announced 72 hours before",
	CodeSuspended:             "the reader suspended all that it had been granted; the owner must grant it again",
	CodeRecovery:              "this is not the recovery key of the identity",
	CodeFrozen:                "two operators stopped all reading of this owner, who had lost all access; the owner ends that",
	CodeOperator:              "the vault does not list a signer as one of its operators; its configuration does",

	CodeVoucher:    "this voucher is not the vault operator's, or not for this name",
	CodeVoucherOld: "a newer voucher for this identity came before",
	CodeRules:      "these guardrails are not the vault operator's",
	CodeRulesOld:   "newer guardrails came before; sign these again",
	CodeLookAlike:  "the name looks like the verified name of somebody else",
	CodeDomain:     "the domain does not say that this identity is its own",
}

// Valid reports whether c is one of the codes above.
func (c Code) Valid() bool { _, ok := codeText[c]; return ok }
