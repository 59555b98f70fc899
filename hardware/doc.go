// Package hardware is what an operator and the vault daemon know of a device: which vendors' modules are supported and
// how they differ, the ceremony that makes a token the vault's own, and the device as the vault opens it at each start.
//
// # The ceremony
//
// [Ceremony.Run] takes an empty token and makes, as security officer and as user, the keys of design section 4: an import
// key for each custody, the sealing key of the first period, the log key and the store key. Package pkcs11 sets their
// protective attributes, reads every one back and refuses the token on any difference. The ceremony then draws the vault's id and its four secrets in memory, seals the secrets
// in the token under the store key, and signs two documents with the ceremony key: the vault document, which says to the
// world which import key is real, and the transcript, which says what the token answered. The ceremony key is made here,
// kept in a file under a passphrase, and meant to be moved offline; clients pin its hash, with the vault's id, by the join
// link or QR code that the ceremony prints. All of it lies in one folder:
//
//	vault.json       the vault document, an envelope; public
//	transcript.json  the transcript, an envelope; public, needed at each start
//	secrets.sealed   data key, import seed, session seed and the host's log seed, sealed in the token
//	join.txt, .png   the join link, as text and as a QR code
//	unfinished.json  there only while a ceremony runs, or after one was cut short
//
// Before it signs, it has package pkcs11 attack throw-away keys made like the real ones, and puts the grade into both documents.
//
// Without attestation by the vendor all of this proves the ceremony, not the silicon: that these keys were made with these
// attributes in whatever answered to PKCS#11 then. Who runs the ceremony must know what device that was.
//
// Two things are signed later, with the ceremony key: the next version of the vault document ([Reissue]), and a transcript that
// lists the sealing key of the next period ([NextSealingKey]).
//
// # The device
//
// [Open] is the vault's way to the token at each start. It refuses a vault document or transcript whose signature does not
// verify, a token with another serial, a key of which any attribute is not what the transcript says, an import key or log
// key that is not the one published, a sealing key that the transcript does not list, the newest one missing, a light probe
// with a wrong answer, secrets that are not of this vault, and a
// development vault unless development mode was asked for. What it returns holds running workers: close it.
//
// # What the caller owes
//
// A PIN reaches this package through [ReadPIN] and no other way: a file that only its owner can read, a systemd credential
// or, in development mode, the environment. A wrong PIN is tried once, never again. The folder of a ceremony holds no
// key in the clear; secrets.sealed is worth backing up, because without it the vault's database cannot be opened. Whoever
// changes a file of the folder stops the vault, which is all that can be had by it.
//
// The package knows vendors so that no other needs to: a difference between modules is a value of a [Profile] here, never
// a branch elsewhere.
package hardware
