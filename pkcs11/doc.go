// Package pkcs11 is the only door to a token.
//
// A token is a PKCS#11 device: an HSM, or SoftHSM on a developer's machine. It
// holds re-encryption keys and gives none of them out. The vault asks it for
// one thing on behalf of readers, Derive: the x-coordinate of rk*E, which is
// the whole of re-encryption (C_DeriveKey with CKM_ECDH1_DERIVE and CKD_NULL).
// For itself the vault asks for signatures on its key-use log (Sign), for the
// opening of its database (Seal, Unseal), and for a small memory outside its
// own disk (SaveState, LoadState).
//
// # The normal path
//
// The ceremony runs once per token: Initialise makes an empty token the
// operator's; then Open as security officer or as user and Generate each key.
// Generate sets the protective attributes, syncs the token's folder, reads
// every attribute back in a fresh session, tries what the attributes are meant
// to prevent, and returns the lot as a KeyReport for the transcript.
//
// The vault then calls Start, which runs the module in several child
// processes, the workers, and offers the same methods as a Token: Import when
// a grant arrives, Derive for each item that is read, Destroy when the grant
// ends. Imports and ends that wait at once go in groups, since the searches and
// syncs that each needs cost as much for one key as for many. A worker is this same program, running Serve on its standard input and
// output. Children, because a module may hang, crash or leak, and ending a
// process is the only cure for each; several, because a module's global lock
// caps one process.
//
// # Two custodies
//
// A resident key is a token object; the token's room bounds their number. For
// more grants than that there is custody sealed: ImportSealed brings a key in,
// has the token wrap it under a sealing key, and returns the SealedKey to the
// caller, who keeps it and hands it back with every DeriveRequest. Nothing of it
// stays in the token, whatever happens. A worker unwraps it when it is asked for,
// into a session object, and keeps a bounded number of these live, the least
// recently used going first; so a derive with a key in use lately costs what one
// with a resident key does, and another costs an unwrap more. Of many that ask
// for a key at once, one unwraps it and the others wait.
//
// A live key answers only to the very blob it was unwrapped from. A blob that
// does not unwrap is ErrKeyMissing: it is foreign, damaged, or its sealing key
// was destroyed.
//
// There is nothing in the token to destroy when a grant in custody sealed ends:
// Forget ends the key in all workers, but whoever kept the blob, and has the
// token and the PIN, can load it again. That ends with its sealing key. So the
// security officer makes a new one for each period; SealingKeys finds it, Reseal
// moves the blobs of living grants to it, inside the token, and
// DestroySealingKey destroys the old one: then the blobs of ended grants are
// noise. A move cut short by a crash is taken up again where it was; a key moved
// twice is the same key.
//
// A sealing key is the security officer's, since only he can make a trusted one,
// and so a public object: SoftHSM writes it to its folder in clear. Blob and
// folder together open without a PIN. The caller encrypts blobs once more before
// they touch a disk, under a key that only the token can open (Seal).
//
// # Probes
//
// Probe is the light probe of each start: a known answer, bad points, attributes
// read back. FullProbe is for the ceremony and for whoever looks at a new HSM:
// it makes throw-away session objects by the plans of the real keys, attacks
// them with everything that the host could call, and grades the token: A if all
// was refused, B if it was in custody resident, C if a host with the PIN can
// take a key out, U if the token cannot do the work. It takes nothing on trust
// that it can try, but it cannot see inside the silicon, and what it does not
// try it does not know.
//
// # What it refuses
//
// The host of the vault knows the PIN, and PKCS#11 lets the caller of
// C_UnwrapKey choose what the new key may do. So the protection of a
// re-encryption key rests on attributes of the *import key*: an unwrap template
// that forces the safe ones on whatever it unwraps, allowed mechanisms, and
// neither modifiable nor copyable. A sealing key has the same, and a sealed key
// can be wrapped by a trusted key only, which the host cannot make. Generate returns ErrAttributes, and destroys
// what it made, if the token does not keep one of them. Import refuses anything
// but a P-256 key that works: other curves, other kinds of key, zero, the
// group's order, garbage; all of them are ErrBadInput and nothing stays behind.
//
// # Errors
//
// Every failure of a token is an *Error, whose Kind is one of the sentinels
// below. A caller acts on the kind. ErrBadInput and ErrKeyMissing are about the
// request. ErrSessionBroken concerns one session, which has been replaced when
// the error arrives: the request may be sent again. After ErrTokenBroken a
// Token is of no further use and a worker ends itself and is started anew.
// ErrPINIncorrect is never retried, since a few more attempts lock the token.
// Modules answer CKR_GENERAL_ERROR both to bad input and to a dead device: it
// is told apart by whether a canary, a key of our own, still derives.
//
// # What the caller owes
//
// Points must be on the curve (decompressed and checked by package vault); here
// only their form is checked. A KeyID must be used once, ever. Results of Derive
// are secret until they are encrypted to the reader: zero them. An import whose
// outcome is unknown (the process died, the session broke) may leave a key:
// Destroy it before it is sent again, compare Keys with the ledger at start and
// Destroy what the ledger does not know. An import in custody sealed leaves
// nothing and is simply sent again. What Reseal returns must be durable before
// the old sealing key is destroyed, and what is under way with an old blob then
// gets ErrKeyMissing: ask again with the new one. And nothing here
// decides who may read: by the time Derive is called, that is on record.
//
// The package knows no vendor. What differs between modules is a value, the
// Profile; the profiles themselves live in package hardware.
package pkcs11
