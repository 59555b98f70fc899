package policies

import (
	"bytes"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies/envelope"
)

// What the tests of this package share: one valid document of each type, made afresh for every caller to spoil.

var (
	testTime = time.Unix(1_800_000_000, 0)

	testVault  = VaultID{1: 0x11}
	testOwner  = OwnerID{1: 0x22}
	testReader = ReaderID{1: 0x33}
)

// testKey is a composite key that is the same in every run; making one takes a while.
var testKey = sync.OnceValue(func() *envelope.PrivateKey { return envelope.NewPrivateKey(&[envelope.SeedSize]byte{7}) })

var otherKey = sync.OnceValue(func() *envelope.PrivateKey { return envelope.NewPrivateKey(&[envelope.SeedSize]byte{8}) })

func filled(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

func header(docType string) Header {
	return Header{Type: docType, Suite: Suite, ID: DocumentID{5: 1}, Time: testTime.Unix()}
}

func validIdentity() *Identity {
	return &Identity{
		Header: header("identity"), Kind: KindBusiness, Name: "Ærø Færger A/S",
		SigningKey: testKey().Public().Bytes(), KEMKey: filled(KEMPublicKeySize, 1), LoginKey: filled(KEMPublicKeySize, 2),
		RecoveryHash: Hash{1},
	}
}

func validVault() *VaultDocument {
	return &VaultDocument{
		Header: header("vault"), Vault: testVault, Version: 3, CeremonyKey: testKey().Public().Bytes(),
		Tokens: []TokenEntry{{
			Serial: "0123", Label: "sallyport", Model: "SoftHSM v2", Grade: "A",
			ImportKeys: []ImportKey{
				{Custody: CustodyResident, Path: "oaep-direct", OAEPHash: "SHA-1", PublicKey: []byte{0x30, 1}},
				{Custody: CustodySealed, Path: "oaep-direct", OAEPHash: "SHA-1", PublicKey: []byte{0x30, 2}},
			},
		}},
		LogKey:     LogKey{Name: "vault.example/log", Algorithm: "Ed25519", PublicKey: filled(32, 3)},
		LogHostKey: LogKey{Name: "vault.example/log/host", Algorithm: "ML-DSA-44", PublicKey: filled(LogHostKeySize, 9)},
		ImportHPKE: filled(KEMPublicKeySize, 4), SessionKEM: filled(KEMPublicKeySize, 5),
	}
}

func validRelationship() *Relationship {
	return &Relationship{
		Header: header("relationship"), Audience: testVault, Reader: testReader, Owner: testOwner,
		KEMKey: filled(KEMPublicKeySize, 6), Nonce: Nonce{1},
	}
}

func validManifest() *Manifest {
	return &Manifest{
		Header: header("manifest"), Audience: testVault, Owner: testOwner, Author: AuthorID(testOwner),
		Link: Link{Seq: 9, Prev: Hash{9}}, Version: 4, PrevManifest: Hash{4}, TreeSize: 2, Root: Hash{2},
	}
}

func validGrant() *Grant {
	field := func(name Field, epoch uint64) GrantedField {
		return GrantedField{Field: name, Epoch: epoch, Author: AuthorID(testOwner), Keys: []WrappedKey{
			{Token: "0123", ImportKey: Hash{7}, Path: "oaep-direct", Digest: Hash{8}},
			{Token: "0456", ImportKey: Hash{7}, Path: "oaep-direct", Digest: Hash{9}},
		}}
	}
	return &Grant{
		Header: header("grant"), Audience: testVault, Owner: testOwner, Link: Link{Seq: 5, Prev: Hash{5}},
		Reader: testReader, Relationship: Hash{6}, Custody: CustodyResident, Rights: []Right{RightRead}, Purpose: "delivery",
		NotBefore: testTime.Unix(), Expires: testTime.Unix() + 3600, Limits: Limits{ReadsPerDay: 10},
		Ciphertext: filled(KEMCiphertextSize, 7), Fields: []GrantedField{field("phone.mobile", 2), field("adr/home", 1)},
	}
}

func validRevocation() *Revocation {
	return &Revocation{
		Header: header("revocation"), Audience: testVault, Owner: testOwner, Link: Link{Seq: 6, Prev: Hash{6}},
		Items: []RevokedItem{{Grant: DocumentID{3}, Field: "phone.mobile", Author: AuthorID(testOwner)}}, Reason: ReasonWithdrawn,
	}
}

func validSession() *Session {
	return &Session{
		Header: header("session"), Audience: testVault, Reader: testReader, Key: envelope.SessionPublicKey{1},
		NotBefore: testTime.Unix(), Expires: testTime.Unix() + 600, Ciphertext: filled(KEMCiphertextSize, 8),
	}
}

func validRead() *ReadRequest {
	return &ReadRequest{
		Header: header("read"), Audience: testVault, Session: Hash{3}, Nonce: Nonce{4}, Expires: testTime.Unix() + 120,
		Purpose: "delivery", Items: []ReadItem{{Owner: testOwner, Field: "phone.mobile"}, {Owner: testOwner, Field: "adr/home", Author: AuthorID{9}, Known: 3}},
	}
}

func validEvidence() *EvidenceRequest {
	return &EvidenceRequest{
		Header: header("evidence"), Audience: testVault, Session: Hash{3}, Nonce: Nonce{4}, Expires: testTime.Unix() + 120, Indexes: []uint64{0, 7, math.MaxUint64},
	}
}

func validClosure() *Closure {
	return &Closure{Header: header("closure"), Audience: VaultID{1}, Owner: OwnerID{2}, Link: Link{Seq: 9, Prev: Hash{3}}}
}

func validQuery() *AuditQuery {
	return &AuditQuery{
		Header: header("audit-query"), Audience: testVault, Auditor: IdentityID(testReader), Nonce: Nonce{5}, Expires: testTime.Unix() + 120,
		From: 512, Count: 256, What: "bodies",
	}
}

func validLeaf(field Field) Leaf {
	l := Leaf{
		Slot:    Slot{Owner: testOwner, Field: field, Epoch: 2, Author: AuthorID(testOwner)},
		Version: 7, CiphertextHash: Hash{1, 2}, Commitment: Hash{3, 4},
	}
	for i := range l.Capsule {
		l.Capsule[i] = byte(i)
	}
	return l
}

// long is a text of n bytes.
func long(n int) string { return strings.Repeat("x", n) }

// flip returns data with one bit of byte i changed.
func flip(data []byte, i int) []byte {
	out := bytes.Clone(data)
	out[i] ^= 1 << (i % 8)
	return out
}

// must unwraps a value in the preparation of a test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
