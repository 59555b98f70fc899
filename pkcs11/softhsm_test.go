package pkcs11

import (
	"context"
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

const (
	testLabel  = "sallyport test"
	officerPIN = "officer-9271"
	userPIN    = "user-5516"
)

// softHSM is a profile for SoftHSM 2.6.1 with a token folder of its own.
func softHSM(t testing.TB) Profile {
	t.Helper()
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", tokens)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	return Profile{
		Name: "SoftHSM 2.6.1", Module: "/usr/lib/softhsm/libsofthsm2.so",
		ImportPath: OAEPDirect, OAEPHash: "sha1", KWP: 0x210A,
		LogAlgorithm: LogEd25519, EdKeyGen: 0x1055, EdSign: 0x1057, EdParams: []byte{0x06, 0x03, 0x2b, 0x65, 0x70},
		Point: PointRaw, ValueLen: true, Sync: SyncFolder, Folder: tokens,
	}
}

func pin(s string) Secret { return NewSecret([]byte(s)) }

func initialised(t testing.TB) Profile {
	t.Helper()
	p := softHSM(t)
	if _, err := Initialise(p, Selector{Label: testLabel}, pin(officerPIN), pin(userPIN)); err != nil {
		t.Fatal(err)
	}
	return p
}

func open(t testing.TB, p Profile, role Role, threads int) *Token {
	t.Helper()
	secret := pin(userPIN)
	if role == Officer {
		secret = pin(officerPIN)
	}
	token, err := Open(t.Context(), Config{Profile: p, Selector: Selector{Label: testLabel}, Role: role, PIN: secret, Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A made is what a ceremony left: the token folder's files, and the public
// import key. Each test works on a copy, which spares it seconds of looking
// for primes.
type made struct {
	files  map[string][]byte
	public *rsa.PublicKey
}

func (m *made) once(t testing.TB, names ...KeyName) (Profile, *rsa.PublicKey) {
	t.Helper()
	if m.files == nil {
		p := initialised(t)
		token := open(t, p, User, 1)
		defer token.Close()
		var public *rsa.PublicKey
		for i, name := range names {
			r, err := token.Generate(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				public = importKey(t, r)
			}
		}
		m.public, m.files = public, make(map[string][]byte)
		folder := os.DirFS(p.Folder)
		err := fs.WalkDir(folder, ".", func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				m.files[path], err = fs.ReadFile(folder, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	p := softHSM(t)
	for path, content := range m.files {
		path = filepath.Join(p.Folder, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p, m.public
}

var resident, sealable, whole made

// ceremony returns a profile whose token has the user's keys, and the public
// import key.
func ceremony(t testing.TB) (Profile, *rsa.PublicKey) {
	t.Helper()
	return resident.once(t, ImportResident, LogKey, StoreKey)
}

func importKey(t testing.TB, r KeyReport) *rsa.PublicKey {
	t.Helper()
	key, err := x509.ParsePKIXPublicKey(r.Public)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PublicKey)
}

// ready is a token after the ceremony, open for the user.
func ready(t testing.TB, threads int) (*Token, *rsa.PublicKey) {
	t.Helper()
	p, public := ceremony(t)
	token := open(t, p, User, threads)
	t.Cleanup(func() { _ = token.Close() })
	return token, public
}

func newKey(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newID() (id KeyID) {
	_, _ = rand.Read(id[:])
	return id
}

// pkcs8 is the form of a scalar that owners wrap (design 3.7): no public key,
// 67 bytes for P-256.
func pkcs8(t testing.TB, curve asn1.ObjectIdentifier, scalar []byte) []byte {
	t.Helper()
	inner, err := asn1.Marshal(struct {
		Version int
		Key     []byte
	}{1, scalar})
	if err != nil {
		t.Fatal(err)
	}
	type algorithm struct{ Algorithm, Curve asn1.ObjectIdentifier }
	der, err := asn1.Marshal(struct {
		Version   int
		Algorithm algorithm
		Key       []byte
	}{0, algorithm{asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, curve}, inner})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

var (
	oidP256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384 = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	orderN  = elliptic.P256().Params().N
)

func wrapped(t testing.TB, public *rsa.PublicKey, der []byte) []byte {
	t.Helper()
	w, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public, der, nil)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func wrappedKey(t testing.TB, public *rsa.PublicKey, key *ecdh.PrivateKey) []byte {
	t.Helper()
	return wrapped(t, public, pkcs8(t, oidP256, key.Bytes()))
}

// objects counts everything that a logged-in user sees in the token.
func objects(t testing.TB, token *Token) (n int) {
	t.Helper()
	err := token.do(t.Context(), token.slow, "counting", func(s cryptoki.Session) error {
		all, err := token.module.Find(s, []cryptoki.Attribute{cryptoki.Bool(cryptoki.CKA_TOKEN, true)})
		n = len(all)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// request is a derive with a fresh peer, and the answer that software gives.
func request(t testing.TB, id KeyID, key *ecdh.PrivateKey) (DeriveRequest, [32]byte) {
	t.Helper()
	peer := newKey(t)
	x, err := key.ECDH(peer.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return DeriveRequest{Key: id, Point: [65]byte(peer.PublicKey().Bytes())}, [32]byte(x)
}

var background = context.Background()
