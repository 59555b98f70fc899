package e2e

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/nistec"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/tests/stage/search"
	"github.com/sallyport/sallyport/vault/pre"
)

// secrets collects what must be nowhere but on the devices and in the token. Each is computed here, from the roots in the devices' profiles and
// the formulas of the design, and checked to be the real one before it is searched for: a search for the wrong bytes proves nothing.
type secrets struct {
	t       *testing.T
	s       *stage.Stage
	markers []search.Marker
	known   map[string]bool

	// controls are what must be found, or the search is blind: ciphertexts, points E, signatures.
	controls []search.Marker
}

func (c *secrets) add(name string, value []byte) {
	c.t.Helper()
	if len(value) < 8 {
		c.t.Fatalf("%s is too short to be searched for", name)
	}
	if key := name + string(value); !c.known[key] {
		c.known[key] = true
		c.markers = append(c.markers, search.Marker{Name: name, Value: bytes.Clone(value)})
	}
}

func (c *secrets) control(name string, value []byte) {
	if key := name + string(value); !c.known[key] {
		c.known[key] = true
		c.controls = append(c.controls, search.Marker{Name: name, Value: bytes.Clone(value)})
	}
}

// values adds a text in the spellings in which it could be stored.
func (c *secrets) text(name, value string) {
	c.add(name, []byte(value))
	var escaped strings.Builder
	for _, r := range value {
		switch {
		case r < 0x80:
			escaped.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&escaped, `\u%04x`, r)
		default:
			r -= 0x10000
			fmt.Fprintf(&escaped, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
	}
	if escaped.String() != value {
		c.add(name+", escaped", []byte(escaped.String()))
	}
}

// device adds the keys that a device holds for ever.
func (c *secrets) device(name string, state *profileState) *pre.Root {
	t := c.t
	t.Helper()
	root, err := pre.ParseRoot(state.Root)
	must(t, err)
	c.add(name+"'s root", state.Root)
	seed := root.IdentitySeed()
	c.add(name+"'s ML-DSA seed", seed[:32])
	c.add(name+"'s Ed25519 seed", seed[32:])
	kem, login := root.KEMSeed(), root.LoginSeed()
	c.add(name+"'s KEM seed", kem[:])
	c.add(name+"'s login seed", login[:])
	if len(state.Recovery) > 0 {
		c.add(name+"'s recovery seed", state.Recovery)
	}
	return root
}

// collect adds what exists now: of each leaf a, A, Z, KEK and DEK, and of each grant rk, d and E'.
func (c *secrets) collect(owner string, readers ...string) {
	t := c.t
	t.Helper()
	state := openState(t, c.s, owner)
	root := c.device(owner, state)
	type party struct {
		name string
		root *pre.Root
	}
	people := map[policies.ReaderID]party{}
	for _, name := range readers {
		text := code(t, c.s, name, "biz")
		id, err := links.ParseContact(text)
		must(t, err)
		people[policies.ReaderID(id.ID)] = party{name, c.device(name, openState(t, c.s, name))}
	}
	for _, raw := range state.Leaves {
		leaf, err := policies.ParseLeaf(raw)
		must(t, err)
		what := fmt.Sprintf(" of %s version %d epoch %d", leaf.Field, leaf.Version, leaf.Epoch)
		a := c.fieldScalar(state.Root, leaf.Slot)
		key, err := root.FieldKey(leaf.Slot)
		must(t, err)
		author, err := key.Author()
		must(t, err)
		A := author.Bytes()
		check, err := nistec.NewP256Point().ScalarBaseMult(a)
		must(t, err)
		if !bytes.Equal(check.BytesCompressed(), A) {
			t.Fatalf("a%s is not what this test computes", what)
		}
		c.add("a"+what, a)
		c.add("A"+what, A[1:])
		c.control("E"+what, leaf.Capsule.E())
		c.control("ciphertext's hash"+what, leaf.CiphertextHash[:])

		E, err := nistec.NewP256Point().SetBytes(leaf.Capsule.E())
		must(t, err)
		Z, err := nistec.NewP256Point().ScalarMult(E, a)
		must(t, err)
		z, err := Z.BytesX()
		must(t, err)
		c.add("Z"+what, z)
		info := policies.Encode("kek", leaf.Owner[:], []byte(leaf.Field), policies.U64(leaf.Epoch), leaf.Author[:], policies.U64(leaf.Version), leaf.Capsule.E())
		kek, err := hkdf.Key(sha256.New, z, leaf.Capsule[33:65], string(info), 32)
		must(t, err)
		dek := unwrap(t, kek, leaf.Capsule[65:])
		commitment, err := hkdf.Key(sha256.New, dek, nil, string(policies.Encode("commit")), 32)
		must(t, err)
		if !bytes.Equal(commitment, leaf.Commitment[:]) {
			t.Fatalf("the DEK%s is not what this test computes", what)
		}
		c.add("KEK"+what, kek)
		c.add("DEK"+what, dek)

		for i := range state.Grants {
			g := &state.Grants[i].Doc
			f, ok := g.Field(leaf.Field, leaf.Author)
			reader, mine := people[g.Reader]
			if !ok || !mine || f.Epoch != leaf.Epoch {
				continue
			}
			what := what + " for " + reader.name
			var nonce policies.Nonce
			for _, contact := range state.Contacts {
				if policies.ReaderID(contact.ID) == g.Reader {
					nonce = contact.Nonce
				}
			}
			secret, err := reader.root.ReaderKey(g.Owner, nonce).OpenGrant(g.Ciphertext)
			must(t, err)
			rk, err := secret.ReEncryptionKey(g.ID, g.Reader, key)
			must(t, err)
			pkcs8 := rk.PKCS8()
			k := pkcs8[len(pkcs8)-32:]
			x, err := pre.Reencrypt(rk, &leaf.Capsule)
			must(t, err)
			// What opens with it is the proof that these are the real ones; the mirror of the owner has the ciphertext.
			d := new(big.Int).ModInverse(new(big.Int).SetBytes(k), order)
			d.Mod(d.Mul(d, new(big.Int).SetBytes(a)), order)
			lifted, err := nistec.NewP256Point().SetBytes(append([]byte{2}, x[:]...))
			must(t, err)
			dE, err := nistec.NewP256Point().ScalarMult(lifted, d.FillBytes(make([]byte, 32)))
			must(t, err)
			if again, err := dE.BytesX(); err != nil || !bytes.Equal(again, z) {
				t.Fatalf("rk, d and E'%s do not fit together", what)
			}
			c.add("rk"+what, k)
			c.add("d"+what, d.FillBytes(make([]byte, 32)))
			c.add("E'"+what, x[:])
		}
	}
}

// order is n of P-256.
var order, _ = new(big.Int).SetString("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)

// fieldScalar is a = OS2IP(HKDF(root, field(f, e, w)), 48 bytes) mod n, as the design has it.
func (c *secrets) fieldScalar(root []byte, slot policies.Slot) []byte {
	c.t.Helper()
	info := policies.Encode("field", []byte(slot.Field), policies.U64(slot.Epoch), slot.Author[:])
	okm, err := hkdf.Key(sha256.New, root, nil, string(info), 48)
	must(c.t, err)
	a := new(big.Int).SetBytes(okm)
	return a.Mod(a, order).FillBytes(make([]byte, 32))
}

// unwrap is AES-256-GCM with nonce 0 and no associated data.
func unwrap(t *testing.T, key, sealed []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	must(t, err)
	gcm, err := cipher.NewGCM(block)
	must(t, err)
	plain, err := gcm.Open(nil, make([]byte, gcm.NonceSize()), sealed, nil)
	must(t, err)
	return plain
}

// place is where a thief looks, and what is surely found there if the search sees anything.
type place struct {
	name     string
	folders  []string
	controls []search.Marker
}

// places are both databases, the log and the signer's state, the token's folder without the PIN, what the daemons print, and every message on its
// way to and from the storefront, inside TLS.
func (c *secrets) places(recordings string) []place {
	c.t.Helper()
	m := publicOf(c.t, c.s)
	state := openState(c.t, c.s, "alice")
	ct := search.Marker{Name: "a grant's ciphertext", Value: state.Grants[0].Doc.Ciphertext[100:164]}
	owner := state.Grants[0].Doc.Owner
	return []place{
		{"the storefront's database", []string{c.s.StorefrontData()}, append([]search.Marker{ct}, c.controls...)},
		{"the key-use log", []string{c.s.VaultLog()}, []search.Marker{ct}},
		{"the signer's state", []string{filepath.Join(c.s.VaultData(), "state")}, []search.Marker{{Name: "the log's id", Value: m.logID}}},
		{"the vault's database", []string{filepath.Join(c.s.VaultData(), "database")}, []search.Marker{{Name: "the owner's id", Value: owner[:]}}},
		{"the token's folder", []string{c.s.TokenFolder()}, []search.Marker{{Name: "the public import key", Value: m.modulus}}},
		{"the ceremony's folder", []string{c.s.Ceremony()}, []search.Marker{{Name: "the public import key", Value: m.modulus}}},
		{"what the vault prints", []string{c.s.Vault.Log}, []search.Marker{{Name: "that it is ready", Value: []byte("msg=ready")}}},
		{"what the storefront prints", []string{c.s.Storefront.Log}, []search.Marker{{Name: "that it is ready", Value: []byte("msg=ready")}}},
		{"messages of clients and storefront", []string{filepath.Join(recordings, "front")}, append([]search.Marker{ct}, c.controls...)},
		{"messages of storefront and vault", []string{filepath.Join(recordings, "hop")}, append([]search.Marker{ct}, c.controls...)},
	}
}

// public is what everybody may know of a vault.
type public struct {
	modulus []byte // of the import key, its beginning
	logID   []byte // binds the files of the key-use log to its key and name
}

func publicOf(t *testing.T, s *stage.Stage) (p public) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.Ceremony(), "vault.json"))
	must(t, err)
	e, err := envelope.Parse(raw)
	must(t, err)
	doc, err := policies.Decode[policies.VaultDocument](e)
	must(t, err)
	key, ok := doc.ImportKey(doc.Tokens[0].Serial, policies.CustodyResident)
	if !ok {
		t.Fatal("no import key in the vault document")
	}
	parsed, err := x509.ParsePKIXPublicKey(key.PublicKey)
	must(t, err)
	logID := sha256.Sum256(slices.Concat([]byte("sallyport/v1/keylog-id\n"), doc.LogKey.PublicKey, []byte(doc.LogKey.Name)))
	return public{parsed.(*rsa.PublicKey).N.Bytes()[:64], logID[:]}
}

// search looks for every secret in every place, and demands that the search is not blind.
func (c *secrets) search(recordings, when string, blind ...string) {
	t := c.t
	t.Helper()
	for _, p := range c.places(recordings) {
		dir := t.TempDir()
		must(t, search.Squeeze(filepath.Join(dir, "squeezed"), p.folders...))
		must(t, search.Unfold(filepath.Join(dir, "unfolded"), filepath.Join(dir, "squeezed")))
		found, read, err := search.Folders(c.markers, dir)
		must(t, err)
		for _, f := range found {
			t.Errorf("%s, %s: %s", p.name, when, f)
		}
		seen, _, err := search.Folders(p.controls, dir)
		must(t, err)
		if len(seen) == 0 && !slices.Contains(blind, p.name) {
			t.Errorf("%s, %s: nothing of %d controls in %d bytes: this search sees nothing", p.name, when, len(p.controls), read)
		}
		t.Logf("%s, %s: %d bytes, %d secrets looked for, %d sightings of what must be there", p.name, when, read, len(c.markers), len(seen))
	}
}

// leakCard is a vCard with values that are nowhere else.
const leakCard = "BEGIN:VCARD\r\nVERSION:4.0\r\nFN:Ζωή Λαμπρόπουλος-Leuchtfeuer\r\nN:Λαμπρόπουλος-Leuchtfeuer;Ζωή;;;\r\n" +
	"TEL;TYPE=cell:+49 151 77100233019\r\nEMAIL:zoe.quittenbaum@xn--bcher-kva.example\r\n" +
	"ADR;TYPE=home:;;Quittenallee 4711b;Πειραιάς;;18535;Griechenland\r\nEND:VCARD\r\n"

// TestNothingLeaks plays a whole story while everything that the storefront sees is recorded, and then looks for every value and every secret of
// it in all that a thief could carry away without a device or the PIN.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	dir, recordings := filepath.Join(t.TempDir(), "stage"), t.TempDir()
	front, hop := newProxy(t, dir, "front", "storefront", "storefront"), newProxy(t, dir, "hop", "vault", "storefront")
	for _, p := range []*proxy{front, hop} {
		p.record = filepath.Join(recordings, p.name)
		must(t, os.Mkdir(p.record, 0o700))
	}
	s := openStage(t, stage.Options{Dir: dir, StorefrontAt: front.url(), VaultAt: hop.url(), VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	c := &secrets{t: t, s: s, known: map[string]bool{}}

	planted := []struct{ field, first, second string }{
		{"own/latin", "Übergrößenträger Straße 27a, Łódź", "Neue Größenordnung 81c, Wrocław"},
		{"own/greek", "Ἀριστοτέλους Πλατεῖα δεκαεπτά", "Οδός Ερμού εικοσιεννέα"},
		{"own/cyrillic", "проспект Вернадского сорок один", "Невский проспект сто двенадцать"},
		{"own/han", "東京都千代田区丸の内一丁目九番", "北京市朝阳区建国路九十三号"},
		{"own/arabic", "شارع التحرير رقم تسعة وعشرون", "ميدان رمسيس رقم ثمانية عشر"},
		{"own/emoji", "🦔🏰🔑 hedgehog-castle-key 🦔🏰🔑", "🐙🗝️🌊 octopus-key-wave 🐙"},
		{"own/iban", "DE02120300000000202051", "GR1601101250000000012300695"},
		{"own/long", strings.Repeat("the quick brown fox jumps over the lazy dog ", 300) + "and the badger", "short and sweet marmalade"},
	}
	for i, text := range []string{"Λαμπρόπουλος-Leuchtfeuer", "77100233019", "151 77100233019", "zoe.quittenbaum", "Quittenallee 4711b", "Πειραιάς"} {
		c.text(fmt.Sprintf("the card's value %d", i), text)
	}
	for _, name := range []string{"user.pin", "so.pin"} {
		pin, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		c.add("the PIN in "+name, bytes.TrimSpace(pin))
	}

	play(t, s, exitDone, "alice", "me", "init")
	c.device("alice", openState(t, s, "alice")) // while it has the recovery key
	for _, name := range []string{"shop", "bank"} {
		play(t, s, exitDone, name, "biz", "init", "--name", name)
		c.device(name, openState(t, s, name))
	}
	cardFile := filepath.Join(t.TempDir(), "card.vcf")
	must(t, os.WriteFile(cardFile, []byte(leakCard), 0o600))
	play(t, s, exitDone, "alice", "me", "import", cardFile)
	for _, p := range planted {
		c.text("the first "+p.field, p.first)
		c.text("the second "+p.field, p.second)
		setValue(t, s, p.field, p.first)
	}
	connect(t, s, "alice", "shop")
	connect(t, s, "alice", "bank")
	type list struct {
		Fields []struct {
			Field string `json:"field"`
		} `json:"fields"`
	}
	var all []string
	for _, f := range said[list](t, play(t, s, exitDone, "alice", "me", "ls", "--json")).Fields {
		all = append(all, f.Field)
	}
	if len(all) < len(planted)+4 {
		t.Fatalf("the card gave too few fields: %v", all)
	}
	play(t, s, exitDone, "alice", append([]string{"me", "grant", "shop", "--yes"}, all...)...)
	play(t, s, exitDone, "alice", append([]string{"me", "grant", "bank", "--yes"}, all[:6]...)...)
	readAll := func(reader string, want int) {
		t.Helper()
		got := said[values](t, play(t, s, exitDone, reader, "biz", "read", "--all", "--json")).Values
		if len(got) != want {
			t.Fatalf("%s read %d fields, want %d", reader, len(got), want)
		}
		for _, v := range got {
			if v.Text == "" {
				t.Fatalf("%s read nothing of %s", reader, v.Field)
			}
		}
	}
	readAll("shop", len(all))
	readAll("bank", 6)
	c.collect("alice", "shop", "bank")
	for _, p := range planted {
		setValue(t, s, p.field, p.second)
	}
	readAll("shop", len(all))
	c.collect("alice", "shop", "bank")
	play(t, s, exitDone, "alice", "me", "rotate", all[0], all[1])
	readAll("shop", len(all))
	c.collect("alice", "shop", "bank")
	play(t, s, exitDone, "alice", append([]string{"me", "revoke", "bank"}, all[:6]...)...)
	if r, err := s.Sallyport(t.Context(), "bank", "biz", "read", "alice", all[0]); err != nil || r.Code != exitRefused {
		t.Fatalf("after the revocation: exit code %d, %v", r.Code, err)
	}
	readAll("shop", len(all))
	c.collect("alice", "shop", "bank")
	play(t, s, exitDone, "alice", "me", "history")
	play(t, s, exitDone, "alice", "me", "rm", "own/long")
	derives(t, s) // has the vault print its counts

	// The search finds what there is to be found, whatever it is called and however it is written.
	decoy := filepath.Join(t.TempDir(), "decoy")
	must(t, os.MkdirAll(decoy, 0o700))
	var heap bytes.Buffer
	for _, m := range c.markers {
		inner := base64.StdEncoding.EncodeToString(append([]byte("x"), m.Value...))
		fmt.Fprintf(&heap, "%s\n", base64.StdEncoding.EncodeToString([]byte(`{"v":"`+inner+`"}`)))
	}
	must(t, os.WriteFile(filepath.Join(decoy, "twice"), heap.Bytes(), 0o600))
	must(t, search.Unfold(filepath.Join(decoy, "inside"), decoy))
	found, _, err := search.Folders(c.markers, filepath.Join(decoy, "inside"))
	must(t, err)
	sighted := map[string]bool{}
	for _, f := range found {
		sighted[f.What] = true
	}
	for _, m := range c.markers {
		if !sighted[m.Name] {
			t.Errorf("the search does not find %s where it lies in base64 in base64", m.Name)
		}
	}
	counts := map[string]int{}
	for _, m := range c.markers {
		counts[strings.SplitN(m.Name, " ", 2)[0]]++
	}
	for _, kind := range []string{"a", "A", "Z", "KEK", "DEK", "rk", "d", "E'"} {
		if counts[kind] < len(all) {
			t.Errorf("only %d secrets of the kind %s: the story gave more", counts[kind], kind)
		}
	}

	// While everything runs: what is in memory-mapped tables is on disk as well. The vault's database is written once a minute and at the end.
	c.search(recordings, "running", "the vault's database")
	must(t, s.Storefront.Stop())
	must(t, s.Vault.Stop())
	c.search(recordings, "stopped")
}

// setValue sets a field from standard input, as a careful person does.
func setValue(t *testing.T, s *stage.Stage, field, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := s.SallyportInput(ctx, value, "alice", "me", "set", field)
	must(t, err)
	if r.Code != exitDone {
		t.Fatalf("setting %s: exit code %d\n%s", field, r.Code, r.Stderr)
	}
}
