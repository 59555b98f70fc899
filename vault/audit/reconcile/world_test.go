package reconcile

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/audit"
)

const origin = "sallyport/0123456789abcdef"

var (
	begun    = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	owner    = policies.OwnerID{1: 0x22}
	author   = policies.AuthorID(owner)
	reader   = policies.ReaderID{2: 0x33}
	resident = policies.DocumentID{1}
	sealedID = policies.DocumentID{2}
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// world is a log and the trace of an honest token beside it, made together. A test makes one of them lie.
type world struct {
	t       testing.TB
	now     time.Time
	entries []*audit.Record
	hashes  []tlog.Hash
	trace   strings.Builder
	calls   int
	handle  int
	objects map[string]int // handles by name
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, now: begun, handle: 1, objects: map[string]int{}}
	w.open()
	w.probe()
	w.sign()
	w.entry(evidence.EntryGenesis, policies.CodeAccepted, evidence.Details{}, nil)
	w.sign()
	w.probe()
	w.entry(evidence.EntryStart, policies.CodeAccepted, evidence.Details{Note: `{"token":{},"derives":[{"point":"raw","works":true},{"point":"der","works":false,"got":"CKR 0x13"}],"points":[{"refused":true},{"refused":false}]}`}, nil)
	w.sign()
	return w
}

func (w *world) tick() { w.now = w.now.Add(3 * time.Millisecond) }

// entry adds an entry to the log.
func (w *world) entry(kind evidence.Kind, outcome policies.Code, d evidence.Details, document []byte) *audit.Record {
	w.tick()
	o, c := evidence.Commit(&d)
	e := evidence.Entry{Kind: kind, Outcome: outcome, Commitment: c}
	leaf := append(policies.U64(uint64(w.now.UnixMilli())), e.Bytes()...)
	r := &audit.Record{Index: uint64(len(w.entries)), Time: w.now, Entry: e, Leaf: leaf, Opening: &o, Document: document}
	w.entries = append(w.entries, r)
	w.hashes = append(w.hashes, must(tlog.StoredHashes(int64(r.Index), leaf, reader2(w.hashes)))...)
	return r
}

type reader2 []tlog.Hash

func (r reader2) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = r[x]
	}
	return out, nil
}

func (w *world) log() iter.Seq2[*audit.Record, error] {
	return func(yield func(*audit.Record, error) bool) {
		for _, r := range w.entries {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// call writes a call into the trace.
func (w *world) call(name string, result string, lines ...string) {
	w.tick()
	fmt.Fprintf(&w.trace, "\n%d: %s\n%s\n", w.calls, name, w.now.Format("2006-01-02 15:04:05.000"))
	for _, l := range lines {
		w.trace.WriteString(l + "\n")
	}
	if result == "" {
		result = "0 CKR_OK"
	}
	w.trace.WriteString("Returned:  " + result + "\n")
	w.calls++
}

// dump writes bytes as the trace does.
func dump(b []byte) string {
	var out strings.Builder
	fmt.Fprintf(&out, "00007f0dd8081b60 / %d", len(b))
	for i := 0; i < len(b); i += 16 {
		row := b[i:min(i+16, len(b))]
		text := ""
		for _, c := range row {
			text += fmt.Sprintf("%02X ", c)
		}
		fmt.Fprintf(&out, "\n    %08X  %-48s %s", i, text, strings.Repeat(".", len(row)))
	}
	return out.String()
}

func (w *world) made(name string) string {
	w.handle++
	w.objects[name] = w.handle
	return fmt.Sprintf("0x%x", w.handle)
}

func (w *world) of(name string) string {
	h, ok := w.objects[name]
	if !ok {
		w.t.Fatalf("the test has no object %q", name)
	}
	return fmt.Sprintf("0x%x", h)
}

// open is a worker that opens the token and finds its keys.
func (w *world) open() {
	w.trace.WriteString("\n\n*************** OpenSC PKCS#11 spy *****************\nLoaded: \"/usr/lib/softhsm/libsofthsm2.so\"\n")
	w.calls, w.objects = 0, map[string]int{}
	w.call("C_GetFunctionList", "")
	w.call("C_Initialize", "", "[in] pInitArgs = 0x7f0de739dde0", "     flags: 2", "       CKF_OS_LOCKING_OK")
	w.call("C_Login", "", "[in] hSession = 0x1", "[in] userType = CKU_USER", "[in] pPin[ulPinLen] "+dump([]byte("31337-pin")))
	w.call("C_GenerateKeyPair", "", "[in] hSession = 0x1", "[in] pMechanism->type = CKM_EC_KEY_PAIR_GEN          ",
		"[in] pPublicKeyTemplate[1]: ", "    CKA_TOKEN             False", "[in] pPrivateKeyTemplate[1]: ", "    CKA_TOKEN             False",
		"[out] hPublicKey = "+w.made("canary public"), "[out] hPrivateKey = "+w.made("canary"))
	w.derive("canary", true)
	for _, label := range []string{"sallyport import resident", "sallyport import sealed", "sallyport log", "sallyport store", "sallyport sealing 1"} {
		w.find(label, nil)
	}
	w.call("C_DecryptInit", "", "[in] hSession = 0x5", "[in] pMechanism->type = CKM_AES_GCM", "[in] hKey = "+w.of("sallyport store"))
	w.call("C_Decrypt", "", "[in] hSession = 0x5", "[in] pEncryptedData[ulEncryptedDataLen] "+dump([]byte{1}), "[out] pData[*pulDataLen] "+dump([]byte{2}))
}

// probe is the light probe, in which one form of C_DeriveKey works and one bad point is taken.
func (w *world) probe() {
	w.derive("canary", false)
	w.derive("canary", false)
}

func (w *world) find(label string, id []byte) {
	name := label
	if id != nil {
		name = fmt.Sprintf("%x", id)
	}
	w.finds(label, id, w.made(name))
}

// finds finds an object that has a handle already.
func (w *world) finds(label string, id []byte, handle string) {
	lines := []string{"[in] hSession = 0x5", "[in] pTemplate[2]: ", "    CKA_TOKEN             True", "    CKA_LABEL             " + print(label)}
	if id != nil {
		lines = append(lines, "    CKA_ID                "+dump(id))
	}
	w.call("C_FindObjectsInit", "", lines...)
	w.call("C_FindObjects", "", "[in] hSession = 0x5", "[in] ulMaxObjectCount = 0x400", "[out] ulObjectCount = 0x1", "Object "+handle+" matches")
	w.call("C_FindObjectsFinal", "", "[in] hSession = 0x5")
}

// print writes text as the trace does.
func print(text string) string {
	var hex strings.Builder
	for i, c := range []byte(text) {
		if i > 0 && i%4 == 0 {
			hex.WriteByte(' ')
		}
		fmt.Fprintf(&hex, "%02X", c)
	}
	return fmt.Sprintf("00007f0dd80823c0 / %d\n    %s\n     %s", len(text), &hex, strings.Repeat(".", 2*len(text)))
}

var g, point = must(decode(generator)), append([]byte{4}, bytes.Repeat([]byte{0xab}, 64)...)

func decode(text string) (b []byte, err error) { _, err = fmt.Sscanf(text, "%x", &b); return b, err }

func (w *world) derive(key string, onGenerator bool) {
	p := point
	if onGenerator {
		p = g
	}
	w.call("C_DeriveKey", "", "[in] hSession = 0x7", "[in] pMechanism->type = CKM_ECDH1_DERIVE", "[in] pMechanism->pParameter->kdf = CKD_NULL",
		"[in] pMechanism->pParameter->pPublicData[ulPublicDataLen] = "+dump(p), "[in] hBaseKey = "+w.of(key), "[in] pTemplate[1]: ", "    CKA_TOKEN             False",
		"[out] hKey = "+w.made("derived"))
	w.call("C_GetAttributeValue", "", "[in] hSession = 0x7", "[in] hObject = "+w.of("derived"), "[in] pTemplate[1]: ", "    CKA_VALUE             000009e1f2650d80 / 64",
		"[out] pTemplate[1]: ", "    CKA_VALUE             "+dump(bytes.Repeat([]byte{0x5e}, 32)))
	w.destroy("derived")
}

func (w *world) destroy(key string) {
	w.call("C_DestroyObject", "", "[in] hSession = 0x7", "[in] hObject = "+w.of(key))
}

func (w *world) unwrap(under, name string, id []byte) {
	lines := []string{"[in] hSession = 0x5", "[in] pMechanism->type = CKM_RSA_PKCS_OAEP", "[in] hUnwrappingKey = " + w.of(under),
		"[in] pWrappedKey[ulWrappedKeyLen] " + dump([]byte{1, 2, 3}), "[in] pTemplate[3]: "}
	if id != nil {
		lines = append(lines, "    CKA_TOKEN             True", "    CKA_LABEL             "+print("sallyport re-encryption key"), "    CKA_ID                "+dump(id))
	} else {
		lines = append(lines, "    CKA_TOKEN             False")
	}
	w.call("C_UnwrapKey", "", append(lines, "[out] hKey = "+w.made(name))...)
}

func (w *world) wrap(under, key string) {
	lines := []string{"[in] hSession = 0x5", "[in] pMechanism->type = 0x0000210A", "[in] hWrappingKey = " + w.of(under), "[in] hKey = " + w.of(key)}
	w.call("C_WrapKey", "", append(lines, "[out] pWrappedKey[*pulWrappedKeyLen] NULL [size : 0x50 (80)]")...)
	w.call("C_WrapKey", "", append(lines, "[out] pWrappedKey[*pulWrappedKeyLen] "+dump([]byte{9}))...)
}

// sign signs the log as it is.
func (w *world) sign() { w.signs(origin, int64(len(w.entries)), w.root()) }

func (w *world) root() tlog.Hash {
	return must(tlog.TreeHash(int64(len(w.entries)), reader2(w.hashes)))
}

func (w *world) signs(origin string, size int64, root tlog.Hash) {
	text := fmt.Sprintf("%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(root[:]))
	w.call("C_SignInit", "", "[in] hSession = 0x6", "[in] pMechanism->type = CKM_EDDSA", "[in] hKey = "+w.of("sallyport log"))
	data := []string{"[in] hSession = 0x6", "[in] pData[ulDataLen] " + dump([]byte(text))}
	w.call("C_Sign", "", append(data, "[out] pSignature[*pulSignatureLen] NULL [size : 0x40 (64)]")...)
	w.call("C_Sign", "", append(data, "[out] pSignature[*pulSignatureLen] "+dump(make([]byte, 64)))...)
}

func id(grant policies.DocumentID, f policies.Field) []byte {
	return must(decode(keyID(grant, f, author)))
}

func name(grant policies.DocumentID, f policies.Field) string { return keyID(grant, f, author) }

// grantOf is the signed grant of an import.
func grantOf(grantID policies.DocumentID, custody policies.Custody, fields ...policies.Field) []byte {
	var seed [envelope.SeedSize]byte
	g := &policies.Grant{
		Header:   policies.Header{Type: "grant", Suite: policies.Suite, ID: grantID, Time: begun.Unix()},
		Audience: policies.VaultID{9}, Owner: owner, Link: policies.Link{Seq: 5, Prev: policies.Hash{5}}, Reader: reader, Relationship: policies.Hash{6},
		Custody: custody, Rights: []policies.Right{policies.RightRead}, Purpose: "delivery", NotBefore: begun.Unix(), Expires: begun.Unix() + 3600,
		Limits: policies.Limits{ReadsPerDay: 10}, Ciphertext: bytes.Repeat([]byte{7}, policies.KEMCiphertextSize),
	}
	for _, f := range fields {
		g.Fields = append(g.Fields, policies.GrantedField{Field: f, Epoch: 1, Author: author, Keys: []policies.WrappedKey{{Token: "1", ImportKey: policies.Hash{7}, Path: "oaep-direct", Digest: policies.Hash{8}}}})
	}
	return must(policies.Sign(envelope.NewPrivateKey(&seed), g)).Raw
}

// grant imports keys as the vault does.
func (w *world) grant(grantID policies.DocumentID, custody policies.Custody, fields ...policies.Field) *audit.Record {
	r := w.entry(evidence.EntryImport, "", evidence.Details{Owner: owner, Reader: reader, Grant: grantID, Custody: custody}, grantOf(grantID, custody, fields...))
	w.sign()
	for _, f := range fields {
		if custody == policies.CustodySealed {
			w.unwrap("sallyport import sealed", "coming", nil)
			w.derive("coming", true)
			w.wrap("sallyport sealing 1", "coming")
			w.unwrap("sallyport sealing 1", "back", nil)
			w.derive("back", true)
			w.destroy("back")
			w.destroy("coming")
			continue
		}
		w.unwrap("sallyport import resident", name(grantID, f), id(grantID, f))
		w.derive(name(grantID, f), true)
		w.find("sallyport re-encryption key", id(grantID, f))
		w.derive(name(grantID, f), true)
	}
	d := evidence.Details{Owner: owner, Reader: reader, Grant: grantID, Index: r.Index, Custody: custody}
	if custody == policies.CustodyResident {
		d.Checks = bytes.Repeat([]byte{1}, evidence.KeyCheckSize*len(fields))
	}
	w.entry(evidence.EntryGrant, policies.CodeAccepted, d, nil)
	w.sign()
	return r
}

// logUse records a use; use carries it out too.
func (w *world) logUse(grantID policies.DocumentID, custody policies.Custody, f policies.Field) *audit.Record {
	r := w.entry(evidence.EntryUse, policies.CodeReleased, evidence.Details{Owner: owner, Reader: reader, Grant: grantID, Field: f, Author: author, Custody: custody}, nil)
	w.sign()
	return r
}

func (w *world) use(grantID policies.DocumentID, custody policies.Custody, f policies.Field) *audit.Record {
	r := w.logUse(grantID, custody, f)
	if custody == policies.CustodySealed {
		if _, loaded := w.objects["live "+name(grantID, f)]; !loaded {
			w.unwrap("sallyport sealing 1", "live "+name(grantID, f), nil)
		}
		w.derive("live "+name(grantID, f), false)
		return r
	}
	w.derive(name(grantID, f), false)
	return r
}

// revoke ends keys of custody resident.
func (w *world) revoke(grantID policies.DocumentID, fields ...policies.Field) {
	var items []policies.RevokedItem
	for _, f := range fields {
		items = append(items, policies.RevokedItem{Grant: grantID, Field: f, Author: author})
		w.derive(name(grantID, f), true)
		w.destroy(name(grantID, f))
	}
	w.entry(evidence.EntryDestroyed, policies.CodeAccepted, evidence.Details{Owner: owner, Items: items, Custody: policies.CustodyResident}, nil)
	w.sign()
}

// end stops the vault.
func (w *world) end() {
	w.entry(evidence.EntryStop, policies.CodeAccepted, evidence.Details{}, nil)
	w.sign()
	w.call("C_Finalize", "", "[in] pReserved = (nil)")
}

// life is a whole life of an honest vault, into which a test puts what it likes.
func (w *world) life(middle func()) {
	w.grant(resident, policies.CustodyResident, "phone", "iban")
	w.grant(sealedID, policies.CustodySealed, "adr")
	w.use(resident, policies.CustodyResident, "phone")
	w.use(sealedID, policies.CustodySealed, "adr")
	if middle != nil {
		middle()
	}
	w.use(sealedID, policies.CustodySealed, "adr")
	w.use(resident, policies.CustodyResident, "iban")
	w.revoke(resident, "phone")
	w.end()
}

func (w *world) against(token *Token) (*Report, error) {
	return reconcile(token, w.log(), tlog.Tree{N: int64(len(w.entries)), Hash: w.root()}, origin, Options{})
}

func (w *world) reconcile() *Report {
	w.t.Helper()
	token, err := ReadSpy(strings.NewReader(w.trace.String()), time.UTC)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := w.against(token)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}
