// Package reconcile compares the key-use log with the token's own record of what it did.
//
// Everything else in package audit reads what the vault wrote, and cannot see what the vault did not write. The token can: whatever a
// vault derives goes through it. So an operation of the token without an entry is a use that was kept from the log, and an entry without an
// operation is one that was made up, or was not carried out.
//
// # The normal path
//
// The token's record is read with [ReadSpy], [ReadLuna], [ReadYubiHSM2] or [ReadNShield], strictly: what is not of its format is a [*FormatError], and
// a chain or numbering that is broken is one too. [Reconcile] then goes over the log from its first entry, holds its leaves against the signed root, works out from
// each entry which operations it stands for ([Table] has the rules), and gives operations to entries: as many as can be, each to one, within a time ([Options]).
// What is left over on either side is a [Finding].
//
// # How much a record tells
//
// A trace of pkcs11-spy has handles, names and points, so each use is compared key by key, and what the log key signed is held against the log's tree: a
// signature over another tree is a second log. It holds PINs and derived values and is for test tokens. Where lines of several calls are mixed
// in it, these calls are compared by time and number only, and that is a finding: a report with one is not clean ([Mixed]). The records of HSMs have
// functions, results and mostly times, but no key that the log knows; there, uses are compared by time and number. An nShield does not tell
// derives from unwraps either, and a YubiHSM 2 has no clock. A report says in its notes what its record could not tell.
//
// # Stated rules
//
// Not everything is one to one:
//
//   - A signature covers many entries. What was signed must be a beginning of the log, and the last one all of it. Where a record does not have what was
//     signed, there may be one signature for each entry and two for each start, at most.
//   - A sealed key stays loaded in a worker, so a use of one accounts for one load or none.
//   - Canaries, derives on the generator of the curve, come with imports and moves in fixed numbers. Those with a key pair that ends with its session
//     belong to nobody.
//   - What was before the first entry was the ceremony, whose transcript has it.
//   - An operation that failed did nothing, and needs no entry. A recorded use that a failed entry takes back may have been made or not, and so may
//     those of the last 30 seconds of a vault that ended without a stop.
//   - How many keys an import or a destruction was for, and which key a use was of, is erased with the entry's body. Uses are still counted; what an
//     erased import or destruction may account for is named as not checkable.
//
// A derive that was made twice because a worker died over it is reported: it is for a person to say whether that worker died by itself.
//
// # What it cannot see
//
// What the token does not record: on an HSM, that all key use is logged, successes included, is for the HSM's own audit role to ensure and to show. And it takes the record
// as genuine, but for the chain of a YubiHSM 2; a Luna's and an nShield's are verified with the vendors' tools.
//
// # Where the formats are from
//
// OpenSC's sources, for the trace. Yubico's description of log entries, and what yubihsm-shell prints. Thales' list of audit log events; the form of a record is that of
// published examples, and the order of the numbers of a date has to be given, since examples are of both kinds. Entrust's description of audit logging
// before firmware 13.5: Common Event Format over syslog; which member holds what is not public, so the reader takes the nCore command
// from the event or the name, the time from rt, and the status from outcome or reason, all of which the Common Event Format defines. None was tried on a device.
package reconcile
