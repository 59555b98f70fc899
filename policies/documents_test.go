package policies

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies/envelope"
)

// rule is one thing a document must not (or, with ok, just may) be.
type rule[D any] struct {
	name  string
	spoil func(D)
	ok    bool
}

// testRules holds a document type to its rules, at every door: Validate, Sign, and Open of a document signed by somebody who
// did not check. It also takes the unspoilt document through Sign and Open.
func testRules[T any, D document[T]](t *testing.T, docType string, valid func() D, rules []rule[D]) {
	t.Helper()
	key := envelope.NewSessionKey()

	e, err := Sign[T](testKey(), valid())
	if err != nil {
		t.Fatalf("the valid %s: %v", docType, err)
	}
	if e.Type != docType {
		t.Errorf("sealed as %q", e.Type)
	}
	opened, err := Open[T, D](e, testKey().Public())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(D(opened), valid()) {
		t.Errorf("came back as %+v", opened)
	}
	if _, err := Open[T, D](e, otherKey().Public()); !errors.Is(err, ErrSignature) {
		t.Errorf("under another key: got %v, want ErrSignature", err)
	}

	common := []rule[D]{}
	for _, h := range []struct {
		name  string
		spoil func(*Header)
	}{
		{"another type", func(h *Header) { h.Type = "letter" }},
		{"another suite", func(h *Header) { h.Suite = "SP2" }},
		{"no suite", func(h *Header) { h.Suite = "" }},
		{"no id", func(h *Header) { h.ID = DocumentID{} }},
		{"no time", func(h *Header) { h.Time = 0 }},
		{"time before 1970", func(h *Header) { h.Time = -1 }},
	} {
		common = append(common, rule[D]{name: h.name, spoil: func(d D) { h.spoil(headerOf(d)) }})
	}
	for _, r := range append(common, rules...) {
		t.Run(r.name, func(t *testing.T) {
			d := valid()
			r.spoil(d)
			err := d.Validate()
			if r.ok {
				if err != nil {
					t.Fatal(err)
				}
				e, err := Sign[T](key, d)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := Open[T, D](e, key.Public()); err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("Validate: got %v, want ErrMalformed", err)
			}
			if _, err := Sign[T](key, d); !errors.Is(err, ErrMalformed) {
				t.Errorf("Sign: got %v, want ErrMalformed", err)
			}
			e, err := envelope.Seal(key, d)
			if err != nil {
				return // too large or not JSON: refused even earlier
			}
			if _, err := Open[T, D](e, key.Public()); !errors.Is(err, ErrMalformed) {
				t.Errorf("Open: got %v, want ErrMalformed", err)
			}
		})
	}
}

func headerOf(d any) *Header {
	return reflect.ValueOf(d).Elem().FieldByName("Header").Addr().Interface().(*Header)
}

func TestIdentity(t *testing.T) {
	testRules(t, "identity", validIdentity, []rule[*Identity]{
		{"person without a name", func(d *Identity) { d.Kind, d.Name = KindPerson, "" }, true},
		{"business without a name", func(d *Identity) { d.Name = "" }, true},
		{"name of 200 bytes", func(d *Identity) { d.Name = long(200) }, true},
		{"name of 201 bytes", func(d *Identity) { d.Name = long(201) }, false},
		{"person with a name", func(d *Identity) { d.Kind = KindPerson }, false},
		{"no kind", func(d *Identity) { d.Kind = "" }, false},
		{"unknown kind", func(d *Identity) { d.Kind = "authority" }, false},
		{"no signing key", func(d *Identity) { d.SigningKey = nil }, false},
		{"short signing key", func(d *Identity) { d.SigningKey = d.SigningKey[1:] }, false},
		{"long signing key", func(d *Identity) { d.SigningKey = append(d.SigningKey, 0) }, false},
		{"short KEM key", func(d *Identity) { d.KEMKey = d.KEMKey[1:] }, false},
		{"long KEM key", func(d *Identity) { d.KEMKey = append(d.KEMKey, 0) }, false},
		{"short login key", func(d *Identity) { d.LoginKey = d.LoginKey[1:] }, false},
		{"no login key", func(d *Identity) { d.LoginKey = nil }, false},
		{"no recovery key", func(d *Identity) { d.RecoveryHash = Hash{} }, false},
	})
}

func TestVaultDocument(t *testing.T) {
	testRules(t, "vault", validVault, []rule[*VaultDocument]{
		{"dev mode", func(d *VaultDocument) { d.DevMode = true }, true},
		{"no vault id", func(d *VaultDocument) { d.Vault = VaultID{} }, false},
		{"no version", func(d *VaultDocument) { d.Version = 0 }, false},
		{"short ceremony key", func(d *VaultDocument) { d.CeremonyKey = d.CeremonyKey[1:] }, false},
		{"no ceremony key", func(d *VaultDocument) { d.CeremonyKey = nil }, false},
		{"short import key", func(d *VaultDocument) { d.ImportHPKE = d.ImportHPKE[1:] }, false},
		{"short session key", func(d *VaultDocument) { d.SessionKEM = d.SessionKEM[1:] }, false},
		{"log key of another algorithm", func(d *VaultDocument) { d.LogKey.Algorithm = "ECDSA-P256" }, false},
		{"short log key", func(d *VaultDocument) { d.LogKey.PublicKey = d.LogKey.PublicKey[1:] }, false},
		{"log key without a name", func(d *VaultDocument) { d.LogKey.Name = "" }, false},
		{"log key with a name that no note can carry", func(d *VaultDocument) { d.LogKey.Name = "a b" }, false},
		{"host's log key of another algorithm", func(d *VaultDocument) { d.LogHostKey.Algorithm = "Ed25519" }, false},
		{"short host's log key", func(d *VaultDocument) { d.LogHostKey.PublicKey = d.LogHostKey.PublicKey[1:] }, false},
		{"no host's log key", func(d *VaultDocument) { d.LogHostKey = LogKey{} }, false},
		{"host's log key without a name", func(d *VaultDocument) { d.LogHostKey.Name = "" }, false},
		{"host's log key with a plus in its name", func(d *VaultDocument) { d.LogHostKey.Name = "a+b" }, false},
		{"host's log key with a name of 256 bytes", func(d *VaultDocument) { d.LogHostKey.Name = long(256) }, false},
		{"both log keys of one name", func(d *VaultDocument) { d.LogHostKey.Name = d.LogKey.Name }, false},
		{"no token", func(d *VaultDocument) { d.Tokens = nil }, false},
		{"token without serial", func(d *VaultDocument) { d.Tokens[0].Serial = "" }, false},
		{"token without import key", func(d *VaultDocument) { d.Tokens[0].ImportKeys = nil }, false},
	})
	d := validVault()
	if k, ok := d.ImportKey("0123", CustodySealed); !ok || k.PublicKey[1] != 2 {
		t.Errorf("found %+v, %t", k, ok)
	}
	for _, c := range []struct {
		serial  string
		custody Custody
	}{{"0124", CustodySealed}, {"0123", "other"}, {"", CustodyResident}} {
		if _, ok := d.ImportKey(c.serial, c.custody); ok {
			t.Errorf("found an import key for %q, %q", c.serial, c.custody)
		}
	}
}

func TestRelationship(t *testing.T) {
	testRules(t, "relationship", validRelationship, []rule[*Relationship]{
		{"no vault", func(d *Relationship) { d.Audience = VaultID{} }, false},
		{"no reader", func(d *Relationship) { d.Reader = ReaderID{} }, false},
		{"no owner", func(d *Relationship) { d.Owner = OwnerID{} }, false},
		{"no nonce", func(d *Relationship) { d.Nonce = Nonce{} }, false},
		{"short key", func(d *Relationship) { d.KEMKey = d.KEMKey[1:] }, false},
		{"long key", func(d *Relationship) { d.KEMKey = append(d.KEMKey, 0) }, false},
	})
}

func TestManifest(t *testing.T) {
	testRules(t, "manifest", validManifest, []rule[*Manifest]{
		{"first version", func(d *Manifest) { d.Version, d.PrevManifest = 1, Hash{} }, true},
		{"no items", func(d *Manifest) { d.TreeSize = 0 }, true},
		{"most items", func(d *Manifest) { d.TreeSize = 1 << 20 }, true},
		{"too many items", func(d *Manifest) { d.TreeSize = 1<<20 + 1 }, false},
		{"no vault", func(d *Manifest) { d.Audience = VaultID{} }, false},
		{"no owner", func(d *Manifest) { d.Owner = OwnerID{} }, false},
		{"no author", func(d *Manifest) { d.Author = AuthorID{} }, false},
		{"no seq", func(d *Manifest) { d.Seq = 0 }, false},
		{"no version", func(d *Manifest) { d.Version = 0 }, false},
		{"no root", func(d *Manifest) { d.Root = Hash{} }, false},
		{"first version after another", func(d *Manifest) { d.Version = 1 }, false},
		{"later version after none", func(d *Manifest) { d.PrevManifest = Hash{} }, false},
		{"another author's chain is its versions", func(d *Manifest) { d.Author, d.Seq, d.Prev = AuthorID{7}, d.Version, d.PrevManifest }, true},
		{"another author's first", func(d *Manifest) {
			d.Author, d.Seq, d.Prev, d.Version, d.PrevManifest = AuthorID{7}, 1, Hash{}, 1, Hash{}
		}, true},
		{"another author in the owner's chain, by seq", func(d *Manifest) { d.Author, d.Prev = AuthorID{7}, d.PrevManifest }, false},
		{"another author in the owner's chain, by prev", func(d *Manifest) { d.Author, d.Seq = AuthorID{7}, d.Version }, false},
	})
}

func TestGrant(t *testing.T) {
	testRules(t, "grant", validGrant, []rule[*Grant]{
		{"sealed", func(d *Grant) { d.Custody = CustodySealed }, true},
		{"no limit", func(d *Grant) { d.Limits = Limits{} }, true},
		{"purpose of 200 bytes", func(d *Grant) { d.Purpose = long(200) }, true},
		{"one second", func(d *Grant) { d.Expires = d.NotBefore + 1 }, true},
		{"one field of two authors", func(d *Grant) { d.Fields[1].Field, d.Fields[1].Author = d.Fields[0].Field, AuthorID{7} }, true},
		{"most fields", func(d *Grant) { d.Fields = manyFields(MaxGrantFields) }, true},
		{"too many fields", func(d *Grant) { d.Fields = manyFields(MaxGrantFields + 1) }, false},
		{"no fields", func(d *Grant) { d.Fields = nil }, false},
		{"no vault", func(d *Grant) { d.Audience = VaultID{} }, false},
		{"no owner", func(d *Grant) { d.Owner = OwnerID{} }, false},
		{"no reader", func(d *Grant) { d.Reader = ReaderID{} }, false},
		{"no relationship", func(d *Grant) { d.Relationship = Hash{} }, false},
		{"no seq", func(d *Grant) { d.Seq = 0 }, false},
		{"no custody", func(d *Grant) { d.Custody = "" }, false},
		{"unknown custody", func(d *Grant) { d.Custody = "escrow" }, false},
		{"no right", func(d *Grant) { d.Rights = nil }, false},
		{"unknown right", func(d *Grant) { d.Rights = []Right{"write"} }, false},
		{"a right besides", func(d *Grant) { d.Rights = []Right{RightRead, "write"} }, false},
		{"a right twice", func(d *Grant) { d.Rights = []Right{RightRead, RightRead} }, false},
		{"no purpose", func(d *Grant) { d.Purpose = "" }, false},
		{"purpose of 201 bytes", func(d *Grant) { d.Purpose = long(201) }, false},
		{"no beginning", func(d *Grant) { d.NotBefore = 0 }, false},
		{"beginning before 1970", func(d *Grant) { d.NotBefore = -1 }, false},
		{"no time at all", func(d *Grant) { d.Expires = d.NotBefore }, false},
		{"ends before it begins", func(d *Grant) { d.Expires = d.NotBefore - 1 }, false},
		{"short ciphertext", func(d *Grant) { d.Ciphertext = d.Ciphertext[1:] }, false},
		{"long ciphertext", func(d *Grant) { d.Ciphertext = append(d.Ciphertext, 0) }, false},
		{"bad field name", func(d *Grant) { d.Fields[1].Field = "Phone" }, false},
		{"field without epoch", func(d *Grant) { d.Fields[1].Epoch = 0 }, false},
		{"field without author", func(d *Grant) { d.Fields[1].Author = AuthorID{} }, false},
		{"field without key", func(d *Grant) { d.Fields[1].Keys = nil }, false},
		{"field twice", func(d *Grant) { d.Fields[1].Field = d.Fields[0].Field }, false},
		{"field twice in two epochs", func(d *Grant) { d.Fields = append(d.Fields, d.Fields[0]); d.Fields[2].Epoch++ }, false},
		{"key without token", func(d *Grant) { d.Fields[1].Keys[1].Token = "" }, false},
		{"key without import key", func(d *Grant) { d.Fields[1].Keys[1].ImportKey = Hash{} }, false},
		{"key without path", func(d *Grant) { d.Fields[1].Keys[1].Path = "" }, false},
		{"key without digest", func(d *Grant) { d.Fields[1].Keys[1].Digest = Hash{} }, false},
		{"two keys for one token", func(d *Grant) { d.Fields[1].Keys[1].Token = d.Fields[1].Keys[0].Token }, false},
	})

	d := validGrant()
	f, ok := d.Field("adr/home", AuthorID(testOwner))
	if !ok || f != &d.Fields[1] {
		t.Errorf("found %+v, %t", f, ok)
	}
	if want := (Slot{Owner: testOwner, Field: "adr/home", Epoch: 1, Author: AuthorID(testOwner)}); d.Slot(f) != want {
		t.Errorf("slot %+v, want %+v", d.Slot(f), want)
	}
	if _, ok := d.Field("adr/home", AuthorID{7}); ok {
		t.Error("found the field of another author")
	}
	if _, ok := d.Field("email", AuthorID(testOwner)); ok {
		t.Error("found a field that is not granted")
	}
}

func manyFields(n int) []GrantedField {
	out := make([]GrantedField, n)
	for i := range out {
		out[i] = validGrant().Fields[0]
		out[i].Author = AuthorID{byte(i >> 8), byte(i), 1}
	}
	return out
}

func TestRevocation(t *testing.T) {
	items := func(n int) []RevokedItem {
		return append(make([]RevokedItem, 0, n), repeat(validRevocation().Items[0], n)...)
	}
	testRules(t, "revocation", validRevocation, []rule[*Revocation]{
		{"superseded", func(d *Revocation) { d.Reason = ReasonSuperseded }, true},
		{"most items", func(d *Revocation) { d.Items = items(MaxRevokedItems) }, true},
		{"too many items", func(d *Revocation) { d.Items = items(MaxRevokedItems + 1) }, false},
		{"no items", func(d *Revocation) { d.Items = nil }, false},
		{"no vault", func(d *Revocation) { d.Audience = VaultID{} }, false},
		{"no owner", func(d *Revocation) { d.Owner = OwnerID{} }, false},
		{"no seq", func(d *Revocation) { d.Seq = 0 }, false},
		{"no reason", func(d *Revocation) { d.Reason = "" }, false},
		{"unknown reason", func(d *Revocation) { d.Reason = "mood" }, false},
		{"bad field name", func(d *Revocation) { d.Items[0].Field = "" }, false},
		{"item without grant", func(d *Revocation) { d.Items[0].Grant = DocumentID{} }, false},
		{"item without author", func(d *Revocation) { d.Items[0].Author = AuthorID{} }, false},
	})
}

func repeat[T any](v T, n int) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func TestSession(t *testing.T) {
	testRules(t, "session", validSession, []rule[*Session]{
		{"one second", func(d *Session) { d.Expires = d.NotBefore + 1 }, true},
		{"ten minutes and a second", func(d *Session) { d.Expires = d.NotBefore + 601 }, false},
		{"no time at all", func(d *Session) { d.Expires = d.NotBefore }, false},
		{"ends before it begins", func(d *Session) { d.Expires = d.NotBefore - 1 }, false},
		{"no beginning", func(d *Session) { d.NotBefore, d.Expires = 0, 600 }, false},
		{"a life that overflows", func(d *Session) { d.NotBefore, d.Expires = math.MinInt64, math.MaxInt64 }, false},
		{"a life that overflows to ten minutes", func(d *Session) { d.NotBefore, d.Expires = math.MinInt64+1, math.MaxInt64-1 }, false},
		{"no vault", func(d *Session) { d.Audience = VaultID{} }, false},
		{"no reader", func(d *Session) { d.Reader = ReaderID{} }, false},
		{"no key", func(d *Session) { d.Key = envelope.SessionPublicKey{} }, false},
		{"short ciphertext", func(d *Session) { d.Ciphertext = d.Ciphertext[1:] }, false},
		{"long ciphertext", func(d *Session) { d.Ciphertext = append(d.Ciphertext, 0) }, false},
	})
}

func TestReadRequest(t *testing.T) {
	items := func(n int) []ReadItem { return repeat(validRead().Items[0], n) }
	testRules(t, "read", validRead, []rule[*ReadRequest]{
		{"most items", func(d *ReadRequest) { d.Items = items(MaxReadItems) }, true},
		{"too many items", func(d *ReadRequest) { d.Items = items(MaxReadItems + 1) }, false},
		{"no items", func(d *ReadRequest) { d.Items = nil }, false},
		{"no vault", func(d *ReadRequest) { d.Audience = VaultID{} }, false},
		{"no session", func(d *ReadRequest) { d.Session = Hash{} }, false},
		{"no nonce", func(d *ReadRequest) { d.Nonce = Nonce{} }, false},
		{"two minutes and a second", func(d *ReadRequest) { d.Expires = d.Time + 121 }, false},
		{"no life", func(d *ReadRequest) { d.Expires = d.Time }, false},
		{"ends before it begins", func(d *ReadRequest) { d.Expires = math.MinInt64 }, false},
		{"lives for ever", func(d *ReadRequest) { d.Time, d.Expires = 1, math.MaxInt64 }, false},
		{"purpose of 200 bytes", func(d *ReadRequest) { d.Purpose = long(200) }, true},
		{"purpose of 201 bytes", func(d *ReadRequest) { d.Purpose = long(201) }, false},
		{"no purpose", func(d *ReadRequest) { d.Purpose = "" }, false},
		{"bad field name", func(d *ReadRequest) { d.Items[1].Field = "a b" }, false},
		{"item without owner", func(d *ReadRequest) { d.Items[1].Owner = OwnerID{} }, false},
	})
	d := validRead()
	if d.Items[0].Writer() != AuthorID(testOwner) || d.Items[1].Writer() != (AuthorID{9}) {
		t.Error("the writer of an item is its author, by default the owner")
	}
}

func TestEvidenceRequest(t *testing.T) {
	indexes := func(n int) []uint64 {
		out := make([]uint64, n)
		for i := range out {
			out[i] = uint64(2 * i)
		}
		return out
	}
	page := func(limit uint64) func(*EvidenceRequest) {
		return func(d *EvidenceRequest) { d.Indexes, d.Limit = nil, limit }
	}
	testRules(t, "evidence", validEvidence, []rule[*EvidenceRequest]{
		{"most indexes", func(d *EvidenceRequest) { d.Indexes = indexes(MaxEvidence) }, true},
		{"too many indexes", func(d *EvidenceRequest) { d.Indexes = indexes(MaxEvidence + 1) }, false},
		{"largest page", page(uint64(MaxEvidence)), true},
		{"a page too large", page(uint64(MaxEvidence) + 1), false},
		{"a page of more than an int", page(math.MaxUint64), false},
		{"a page below an index", func(d *EvidenceRequest) { d.Indexes, d.Before, d.Limit = nil, math.MaxUint64, 1 }, true},
		{"neither", page(0), false},
		{"both", func(d *EvidenceRequest) { d.Limit = 1 }, false},
		{"indexes below another", func(d *EvidenceRequest) { d.Before = 9 }, false},
		{"before alone", func(d *EvidenceRequest) { d.Indexes, d.Before = nil, 9 }, false},
		{"one index twice", func(d *EvidenceRequest) { d.Indexes[1] = 0 }, false},
		{"indexes that descend", func(d *EvidenceRequest) { d.Indexes[0] = 8 }, false},
		{"no vault", func(d *EvidenceRequest) { d.Audience = VaultID{} }, false},
		{"no session", func(d *EvidenceRequest) { d.Session = Hash{} }, false},
		{"no nonce", func(d *EvidenceRequest) { d.Nonce = Nonce{} }, false},
		{"two minutes and a second", func(d *EvidenceRequest) { d.Expires = d.Time + 121 }, false},
		{"no life", func(d *EvidenceRequest) { d.Expires = d.Time }, false},
		{"ends before it begins", func(d *EvidenceRequest) { d.Expires = math.MinInt64 }, false},
		{"lives for ever", func(d *EvidenceRequest) { d.Time, d.Expires = 1, math.MaxInt64 }, false},
	})
	d := validEvidence()
	if d.Most() != 3 {
		t.Errorf("asks for %d entries", d.Most())
	}
	if d.Indexes, d.Limit = nil, 40; d.Most() != 40 {
		t.Errorf("a page asks for %d entries", d.Most())
	}
}

func TestAuditQuery(t *testing.T) {
	testRules(t, "audit-query", validQuery, []rule[*AuditQuery]{
		{"from the first", func(d *AuditQuery) { d.From = 0 }, true},
		{"entries", func(d *AuditQuery) { d.What = "entries" }, true},
		{"most entries", func(d *AuditQuery) { d.Count = uint64(MaxQueryEntries) }, true},
		{"too many entries", func(d *AuditQuery) { d.Count = uint64(MaxQueryEntries) + 1 }, false},
		{"no entries", func(d *AuditQuery) { d.Count = 0 }, false},
		{"beyond any log", func(d *AuditQuery) { d.From = 1<<62 + 1 }, false},
		{"no vault", func(d *AuditQuery) { d.Audience = VaultID{} }, false},
		{"no auditor", func(d *AuditQuery) { d.Auditor = IdentityID{} }, false},
		{"no nonce", func(d *AuditQuery) { d.Nonce = Nonce{} }, false},
		{"two minutes and a second", func(d *AuditQuery) { d.Expires = d.Time + 121 }, false},
		{"no life", func(d *AuditQuery) { d.Expires = d.Time }, false},
		{"ends before it begins", func(d *AuditQuery) { d.Expires = math.MinInt64 }, false},
		{"lives for ever", func(d *AuditQuery) { d.Time, d.Expires = 1, math.MaxInt64 }, false},
		{"of nothing", func(d *AuditQuery) { d.What = "" }, false},
		{"of everything", func(d *AuditQuery) { d.What = "all" }, false},
	})
}

func TestClosure(t *testing.T) {
	testRules(t, "closure", validClosure, []rule[*Closure]{
		{"the first document", func(d *Closure) { d.Seq, d.Prev = 1, Hash(d.Owner) }, true},
		{"no vault", func(d *Closure) { d.Audience = VaultID{} }, false},
		{"no owner", func(d *Closure) { d.Owner = OwnerID{} }, false},
		{"no place", func(d *Closure) { d.Seq = 0 }, false},
	})
}

func TestLink(t *testing.T) {
	head := Hash{5}
	for _, c := range []struct {
		name string
		link Link
		want error
	}{
		{"next", Link{6, head}, nil},
		{"same seq", Link{5, head}, CodeChain},
		{"one left out", Link{7, head}, CodeChain},
		{"older", Link{1, head}, CodeChain},
		{"other history", Link{6, Hash{6}}, CodeChain},
		{"no history", Link{6, Hash{}}, CodeChain},
	} {
		if err := c.link.Follows(5, head); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if (Link{1, head}).Follows(math.MaxUint64, head) == nil || (Link{0, head}).Follows(5, head) == nil {
		t.Error("a chain begins again")
	}
}

func TestLive(t *testing.T) {
	session, read, proof, query := validSession(), validRead(), validEvidence(), validQuery()
	for _, c := range []struct {
		name          string
		at            time.Duration // after testTime
		session, read bool
	}{
		{"long before", -time.Hour, false, false},
		{"a second and the skew before", -61 * time.Second, false, false},
		{"the skew before", -60 * time.Second, true, true},
		{"at the beginning", 0, true, true},
		{"request's last second", 119 * time.Second, true, true},
		{"request's end", 120 * time.Second, true, false},
		{"session's last second", 599 * time.Second, true, false},
		{"session's end", 600 * time.Second, false, false},
		{"long after", time.Hour, false, false},
	} {
		now := testTime.Add(c.at)
		if err := session.Live(now); (err == nil) != c.session || err != nil && err != CodeSession {
			t.Errorf("session, %s: %v", c.name, err)
		}
		if err := read.Live(now); (err == nil) != c.read || err != nil && err != CodeExpired {
			t.Errorf("request, %s: %v", c.name, err)
		}
		if err := proof.Live(now); (err == nil) != c.read || err != nil && err != CodeExpired {
			t.Errorf("request for evidence, %s: %v", c.name, err)
		}
		if err := query.Live(now); (err == nil) != c.read || err != nil && err != CodeExpired {
			t.Errorf("query, %s: %v", c.name, err)
		}
	}
}

func TestOpenIdentity(t *testing.T) {
	e := must(Sign[Identity](testKey(), validIdentity()))
	d, id, err := OpenIdentity(e)
	if err != nil || id != IdentityID(e.Hash) || d.Name != validIdentity().Name {
		t.Fatalf("got %v, %v", id, err)
	}
	if _, _, err := OpenIdentity(must(Sign[Identity](otherKey(), validIdentity()))); !errors.Is(err, ErrSignature) {
		t.Errorf("signed by another key than its own: got %v, want ErrSignature", err)
	}
	if _, _, err := OpenIdentity(must(Sign[Manifest](testKey(), validManifest()))); !errors.Is(err, ErrMalformed) {
		t.Errorf("another document: got %v, want ErrMalformed", err)
	}
	// The id changes with every byte of the document, so a swapped key cannot keep it.
	swapped := validIdentity()
	swapped.KEMKey = flip(swapped.KEMKey, 0)
	if _, other, err := OpenIdentity(must(Sign[Identity](testKey(), swapped))); err != nil || other == id {
		t.Errorf("another KEM key keeps the id: %v", err)
	}
}

func TestOpenVault(t *testing.T) {
	pin := HashKey(testKey().Public().Bytes())
	good := must(Sign[VaultDocument](testKey(), validVault()))
	forged := must(Sign[VaultDocument](otherKey(), validVault())) // names the real ceremony key, signed by another
	foreign := validVault()
	foreign.CeremonyKey = otherKey().Public().Bytes()
	for _, c := range []struct {
		name   string
		e      *envelope.Envelope
		vault  VaultID
		pin    Hash
		newest uint64
		want   error
	}{
		{"pinned", good, testVault, pin, 0, nil},
		{"same version as before", good, testVault, pin, 3, nil},
		{"newer than before", good, testVault, pin, 2, nil},
		{"older than before", good, testVault, pin, 4, ErrPin},
		{"another vault", good, VaultID{9}, pin, 0, ErrPin},
		{"another ceremony pinned", good, testVault, HashKey(otherKey().Public().Bytes()), 0, ErrPin},
		{"no pin", good, testVault, Hash{}, 0, ErrPin},
		{"a whole document of another ceremony", must(Sign[VaultDocument](otherKey(), foreign)), testVault, pin, 0, ErrPin},
		{"signed by another key", forged, testVault, pin, 0, ErrSignature},
		{"no vault document", must(Sign[Manifest](testKey(), validManifest())), testVault, pin, 0, ErrMalformed},
	} {
		d, err := OpenVault(c.e, c.vault, c.pin, c.newest)
		if c.want == nil && (err != nil || d.Version != 3) || c.want != nil && (!errors.Is(err, c.want) || d != nil) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// A document does not pass as one of another type, and none is read under another's key type.
func TestDocumentsAreNotConfused(t *testing.T) {
	e := must(Sign[Revocation](testKey(), validRevocation()))
	if _, err := Open[Grant](e, testKey().Public()); !errors.Is(err, ErrMalformed) {
		t.Errorf("revocation as grant: got %v, want ErrMalformed", err)
	}
	if _, err := Open[Manifest](e, testKey().Public()); !errors.Is(err, ErrMalformed) {
		t.Errorf("revocation as manifest: got %v, want ErrMalformed", err)
	}
}

func TestNewHeader(t *testing.T) {
	a, b := NewHeader("grant", testTime), NewHeader("grant", testTime)
	if a.ID == b.ID || a.ID.IsZero() || a.Type != "grant" || a.Suite != Suite || a.Time != testTime.Unix() {
		t.Errorf("made %+v and %+v", a, b)
	}
}

func FuzzDocument(f *testing.F) {
	decoders := map[string]func(*testing.T, *envelope.Envelope, *envelope.SessionKey){
		"identity": again[Identity], "vault": again[VaultDocument], "relationship": again[Relationship], "manifest": again[Manifest],
		"grant": again[Grant], "revocation": again[Revocation], "session": again[Session], "read": again[ReadRequest],
		"evidence": again[EvidenceRequest], "audit-query": again[AuditQuery], "closure": again[Closure],
	}
	for _, d := range []envelope.Document{
		validIdentity(), validVault(), validRelationship(), validManifest(), validGrant(), validRevocation(), validSession(), validRead(), validEvidence(), validQuery(), validClosure(),
	} {
		e, err := envelope.Seal(envelope.NewSessionKey(), d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.Type, e.Payload)
		f.Add(e.Type, bytes.Replace(e.Payload, []byte(`"SP1"`), []byte(`null`), 1))
	}
	key := envelope.NewSessionKey()
	f.Fuzz(func(t *testing.T, docType string, payload []byte) {
		if decode, ok := decoders[docType]; ok {
			decode(t, &envelope.Envelope{Type: docType, Payload: payload}, key)
		}
	})
}

// again checks that whatever Decode accepts can be signed and comes back the same.
func again[T any, D document[T]](t *testing.T, e *envelope.Envelope, key *envelope.SessionKey) {
	d, err := Decode[T, D](e)
	if err != nil {
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("got %v, want ErrMalformed", err)
		}
		return
	}
	signed, err := Sign[T](key, D(d))
	if err != nil {
		t.Fatalf("accepted and cannot be signed: %v", err)
	}
	if back, err := Open[T, D](signed, key.Public()); err != nil || !reflect.DeepEqual(back, d) {
		t.Errorf("%+v came back as %+v, %v", d, back, err)
	}
}

// Names and purposes are shown to people and to auditors: what draws on a terminal or hides in a line is refused.
func TestTextIsPrintable(t *testing.T) {
	for _, text := range []string{"a\x1b[2Kb", "a\nb", "a\u202eb", "a\u200bb", "a\x00b", "a\x7f", "\u2028", "\u0085", "\u2067", "\ufeffa"} {
		identity, grant, read := validIdentity(), validGrant(), validRead()
		identity.Name, grant.Purpose, read.Purpose = text, text, text
		for _, err := range []error{identity.Validate(), grant.Validate(), read.Validate()} {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%q: got %v, want ErrMalformed", text, err)
			}
		}
	}
	for _, text := range []string{"Ærø Færger A/S", "delivery, 10 €", "配達", "می\u200cخواهم", "10\u00a0€", "👩\u200d🌾"} {
		identity, grant, read := validIdentity(), validGrant(), validRead()
		identity.Name, grant.Purpose, read.Purpose = text, text, text
		if err := errors.Join(identity.Validate(), grant.Validate(), read.Validate()); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A key that serves two purposes lets one be used against the other: blobs and sessions have keys of their own.
func TestVaultKeysOfDifferentPurposesDiffer(t *testing.T) {
	d := validVault()
	d.SessionKEM = d.ImportHPKE
	if err := d.Validate(); !errors.Is(err, ErrMalformed) {
		t.Errorf("got %v, want ErrMalformed", err)
	}
}
