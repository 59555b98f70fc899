// Package pre is the scheme: how a person's value becomes something that a token can turn toward one reader, and nobody
// on the way can read. It is pure mathematics and bytes. It knows no network, no store, no clock and no token.
//
// # The idea
//
// All points are on P-256 (base point G, order n); x(P) is the 32-byte big-endian x-coordinate of P. For every field, epoch
// and author the owner has a secret scalar a, the [FieldKey]. A value is encrypted under a fresh data encryption key (DEK),
// and the DEK is wrapped into a capsule (E, s, W):
//
//	r, s random;  E = rG;  Z = x(rA) = x(aE);  KEK = HKDF(Z, salt s, info "kek");  W = AES-256-GCM(KEK, nonce 0, DEK)
//
// To let a reader read, the owner encapsulates a secret to the reader's X-Wing key, derives a scalar d from it, and puts
// the re-encryption key rk = a/d mod n into the token. The token's whole work is one scalar multiplication,
// E' = x(rk E), which is exactly PKCS#11's ECDH derivation. The reader knows d too and gets
// Z = x(d lift(E')) = x(d (a/d) r G) = x(aE). Lifting x back to a point loses the sign, which does not matter: P and -P have
// the same x.
//
// A = aG is never published and neither is E'. With a quantum computer E yields r; A, d and E' are what then stands between
// an attacker and Z, and none of them ever travels outside post-quantum encryption.
//
// # The normal path
//
// The owner, on their device, once a field:
//
//	a, err := root.FieldKey(slot)
//	leaf, ciphertext, err := a.Seal(version, value, nil)
//
// The owner, for a reader whose public key a signed relationship carries:
//
//	ct, secret, err := pre.NewGrantSecret(readerPublic, nil)
//	rk, err := secret.ReEncryptionKey(grantID, readerID, a)
//	wrap(rk.PKCS8())                         // under the token's import key, then SealBlob to the vault
//	rk.Zero(); secret.Zero()                 // the owner forgets both
//
// The vault gives the token the point from [Decompress]; the token answers x. [Reencrypt] is its twin in software. The reader:
//
//	secret, err := readerKey.OpenGrant(ct)
//	value, err := secret.Open(grantID, readerID, &leaf, x, ciphertext)
//
// [FieldKey.Rotate] moves an item into the next epoch without its ciphertext. An author who is not the owner holds an
// [AuthorKey], which seals and cannot open. Besides, the package has the other three uses of X-Wing: blobs
// ([SealBlob], [BlobKey]), the session between reader and vault ([EncapsulateSession], [VaultKey], [SessionKey]) and the
// login challenge ([NewChallenge], [LoginKey]). Each is a type of its own, and none hands out a decapsulated secret.
//
// # Encodings
//
// HKDF is HKDF-SHA-256 (RFC 5869) with an empty salt unless one is named. Every info and associated data is
// [policies.Encode] of a use and its fields; below, use(x, y) stands for that. f is the field's name, e the epoch, w the author,
// k the version, all integers eight bytes big-endian. A scalar is OS2IP of 48 bytes mod n.
//
//	ML-DSA-65 seed       32 = HKDF(root, identity-mldsa65())
//	Ed25519 seed         32 = HKDF(root, identity-ed25519())
//	identity X-Wing seed 32 = HKDF(root, identity-kem())
//	login X-Wing seed    32 = HKDF(root, login-kem())
//	reader X-Wing seed   32 = HKDF(root, reader(owner, nonce))       the reader's root, one key per owner
//	invitation keys   32, 32 = HKDF(root, invitation-cipher()), HKDF(root, invitation-mac())   the reader's root
//	a                    48 = HKDF(root, field(f, e, w))             if 0 mod n: field(f, e, w, i), i = 1, 2, ...
//	C, the commitment    32 = HKDF(DEK, commit())
//	KEK                  32 = HKDF(Z, salt s, kek(owner, f, e, w, k, E))
//	W                    48 = AES-256-GCM(KEK, nonce 0, DEK, no associated data)
//	ciphertext              = AES-256-GCM(DEK, nonce 0, padded value, item(owner, f, k))
//	d                    48 = HKDF(ss, grant(grant id, owner, reader, f, e, w))
//	K                    32 = HKDF(ss, session-key(vault, reader, session hash))
//	answer key           32 = HKDF(K, answer(request hash))
//	answer                  = nonce (12, random) || AES-256-GCM(answer key, nonce, answer, answer(request hash))
//	login answer         32 = HMAC-SHA-256(HKDF(ss, challenge-answer()), challenge(server, subject, ct, nonce, fresh key))
//	blob                    = HPKE base mode (RFC 9180), KEM 0x647a, HKDF-SHA-256, AES-256-GCM: enc (1,120) || ciphertext
//	rk at rest              = PKCS#8 (RFC 5208) around ECPrivateKey (RFC 5915) without public key, 67 bytes
//
// The padded value is the value's length (u32, big-endian), the value, and zeroes up to the Padmé size (Nikitin et al., Reducing
// Metadata Leakage from Encrypted Files and Communication with PURBs, PETS 2019). Padmé leaks O(log log) of the length and
// costs at most 12 %. It hides little of a very short value: lengths up to 8 bytes, with their prefix, are padded by at most
// one byte. Who must hide whether a door code has four digits or five pads the value itself.
//
// The ciphertext's associated data has no epoch and no author, because rotation must keep the ciphertext. What binds an item to its
// epoch and author is the KEK, and the commitment binds the DEK to the leaf: AES-GCM does not commit to its key (two keys may
// open one ciphertext), C does.
//
// # What it refuses
//
// Whatever does not open is [ErrOpen] and says no more: a wrong reader, owner, field, epoch, version, author or grant, a flipped
// bit, a point that is not on the curve or is infinity, an x without a point, padding that is not the one padding. Points and
// keys of the wrong form are [ErrPoint] and [ErrKey]; values above 1 MiB are [ErrTooLarge]. No input makes it panic.
//
// # What it promises about secrets
//
// Secret scalars meet only filippo.io/bigmod and filippo.io/nistec, in constant time; the inverse is Exp(d, n-2). A test reads the
// sources and holds this. Types that hold a secret print as "(redacted)" and have Zero, which overwrites it; what the compiler, the
// runtime and the libraries copied on their stacks is out of reach. The caller owes: verifying the signatures, proofs
// and grants before opening anything (this package checks that an item belongs to a slot, not that it is the newest), never using a
// version number twice, and calling Zero.
package pre

import "errors"

var (
	// ErrOpen: this key does not open this item, blob, answer or grant. There is one such error, so that it tells nobody what was
	// wrong.
	ErrOpen = errors.New("does not open")
	// ErrKey: bytes that are not a key of the kind wanted, a zero scalar, or a key that was zeroed.
	ErrKey = errors.New("not a usable key")
	// ErrPoint: bytes that are not a point of P-256, or are the point at infinity.
	ErrPoint = errors.New("not a point of P-256")
	// ErrTooLarge: a value above policies.MaxValue, 1 MiB.
	ErrTooLarge = errors.New("value is larger than 1 MiB")
)
