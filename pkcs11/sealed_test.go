package pkcs11

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rsa"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// officerMakes makes sealing keys, as another process would: it must be called
// while no token is open here.
func officerMakes(t testing.TB, p Profile, periods ...uint32) {
	t.Helper()
	officer := open(t, p, Officer, 1)
	defer officer.Close()
	for _, period := range periods {
		if _, err := officer.Generate(t.Context(), SealingKey(period)); err != nil {
			t.Fatal(err)
		}
	}
}

// sealedCeremony is ceremony for the custody sealed, with sealing keys of these periods.
func sealedCeremony(t testing.TB, periods ...uint32) (Profile, *rsa.PublicKey) {
	t.Helper()
	p, public := sealable.once(t, ImportSealed)
	officerMakes(t, p, periods...)
	return p, public
}

func readySealed(t testing.TB, change func(*Config), periods ...uint32) (*Token, *rsa.PublicKey) {
	t.Helper()
	p, public := sealedCeremony(t, periods...)
	c := Config{Profile: p, Selector: Selector{Label: testLabel}, Role: User, PIN: pin(userPIN), Threads: 2}
	if change != nil {
		change(&c)
	}
	token, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = token.Close() })
	return token, public
}

// a custodian is a Token or a Pool.
type custodian interface {
	Derive(context.Context, []DeriveRequest) []DeriveResult
	ImportSealed(context.Context, KeyID, string, []byte) (SealedKey, error)
	Reseal(context.Context, []SealedKey) ([]SealedKey, error)
	Forget(context.Context, KeyID) error
	SealingKeys(context.Context) ([]uint32, error)
	DestroySealingKey(context.Context, uint32) error
}

// A sealedCase is an imported sealed key and what it must answer.
type sealedCase struct {
	key  *ecdh.PrivateKey
	req  DeriveRequest
	want [32]byte
}

func importedSealed(t testing.TB, c custodian, public *rsa.PublicKey) sealedCase {
	t.Helper()
	s := sealedCase{key: newKey(t)}
	id := newID()
	k, err := c.ImportSealed(t.Context(), id, OAEPDirect, wrappedKey(t, public, s.key))
	if err != nil {
		t.Fatal(err)
	}
	s.req, s.want = request(t, id, s.key)
	s.req.Sealed = k
	return s
}

func (s sealedCase) check(c custodian) error {
	for _, r := range c.Derive(background, []DeriveRequest{s.req, s.req}) {
		if r.Err != nil {
			return r.Err
		}
		if r.X != s.want {
			return errors.New("wrong x")
		}
	}
	return nil
}

// everything counts all objects that this process sees, session objects included.
func everything(t testing.TB, token *Token) (n int) {
	t.Helper()
	err := token.do(t.Context(), token.slow, "counting", func(s cryptoki.Session) error {
		all, err := token.module.Find(s, nil)
		n = len(all)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSealed(t *testing.T) {
	token, public := readySealed(t, nil, 1)
	before := everything(t, token)
	s := importedSealed(t, token, public)
	if after := everything(t, token); after != before {
		t.Errorf("%d objects before the import, %d after", before, after)
	}
	if s.req.Sealed.Period != 1 || len(s.req.Sealed.Blob) != 80 {
		t.Errorf("period %d, %d bytes", s.req.Sealed.Period, len(s.req.Sealed.Blob))
	}
	calls := token.Calls()
	for range 3 {
		if err := s.check(token); err != nil {
			t.Fatal(err)
		}
	}
	diff := token.Calls()
	for name, n := range calls {
		if diff[name] -= n; diff[name] == 0 {
			delete(diff, name)
		}
	}
	if want := map[string]uint64{"C_UnwrapKey": 1, "C_DeriveKey": 6, "C_GetAttributeValue": 6, "C_DestroyObject": 6}; !maps.Equal(diff, want) {
		t.Errorf("calls: %v", diff)
	}
	if n := everything(t, token); n != before+1 {
		t.Errorf("%d live keys", n-before)
	}
	// Warm or not, another blob is another key.
	for name, change := range map[string]func(*DeriveRequest){
		"flipped bit":      func(r *DeriveRequest) { r.Sealed.Blob[3] ^= 1 },
		"flipped last bit": func(r *DeriveRequest) { r.Sealed.Blob[len(r.Sealed.Blob)-1] ^= 1 },
		"short":            func(r *DeriveRequest) { r.Sealed.Blob = r.Sealed.Blob[:72] },
		"not of 8 bytes":   func(r *DeriveRequest) { r.Sealed.Blob = r.Sealed.Blob[:79] },
		"one byte":         func(r *DeriveRequest) { r.Sealed.Blob = r.Sealed.Blob[:1] },
		"long":             func(r *DeriveRequest) { r.Sealed.Blob = make([]byte, maxBlob+1) },
		"garbage":          func(r *DeriveRequest) { r.Sealed.Blob = bytes.Repeat([]byte{5}, 80) },
		"another period":   func(r *DeriveRequest) { r.Sealed.Period = 2 },
	} {
		bad := s.req
		bad.Sealed.Blob = bytes.Clone(s.req.Sealed.Blob)
		change(&bad)
		r := token.Derive(t.Context(), []DeriveRequest{s.req, bad, s.req})
		if r[0].Err != nil || r[2].Err != nil {
			t.Fatalf("%s: %v %v", name, r[0].Err, r[2].Err)
		}
		if !errors.Is(r[1].Err, ErrKeyMissing) || r[1].X != [32]byte{} {
			t.Errorf("%s: %v", name, r[1].Err)
		}
	}
	if n := everything(t, token); n != before+1 {
		t.Errorf("%d live keys", n-before)
	}
	if err := token.Forget(t.Context(), s.req.Key); err != nil {
		t.Fatal(err)
	}
	if n := everything(t, token); n != before {
		t.Errorf("%d objects before, %d after", before, n)
	}
	if err := s.check(token); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("forgotten: %v", err)
	}
	// Imported anew, the id is alive again.
	again, err := token.ImportSealed(t.Context(), s.req.Key, OAEPDirect, wrappedKey(t, public, s.key))
	if err != nil || !bytes.Equal(again.Blob, s.req.Sealed.Blob) {
		t.Errorf("the same key again: %x %v", again.Blob, err)
	}
	if err := s.check(token); err != nil {
		t.Error(err)
	}
}

// Periods: keys move on, the old sealing key ends and takes its blobs with it.
func TestReseal(t *testing.T) {
	token, public := readySealed(t, nil, 3)
	moved, left := importedSealed(t, token, public), importedSealed(t, token, public)
	old := moved
	for _, s := range []sealedCase{moved, left} {
		if err := s.check(token); err != nil {
			t.Fatal(err)
		}
	}
	if err := token.DestroySealingKey(t.Context(), 3); !errors.Is(err, ErrRefused) {
		t.Errorf("the newest: %v", err)
	}
	p := token.profile
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	officerMakes(t, p, 10)
	token = open(t, p, User, 2)
	defer token.Close()
	if periods, err := token.SealingKeys(t.Context()); err != nil || !slices.Equal(periods, []uint32{3, 10}) {
		t.Errorf("%v %v", periods, err)
	}
	before := everything(t, token)
	bad := SealedKey{Period: 3, Blob: bytes.Repeat([]byte{9}, 80)}
	if _, err := token.Reseal(t.Context(), []SealedKey{moved.req.Sealed, bad, moved.req.Sealed}); !errors.Is(err, ErrKeyMissing) ||
		err.Error() != "resealing key 2 of 3: key missing" {
		t.Errorf("one of three bad: %v", err)
	}
	k, err := token.Reseal(t.Context(), []SealedKey{moved.req.Sealed})
	if err != nil || k[0].Period != 10 {
		t.Fatalf("%+v %v", k, err)
	}
	same, err := token.Reseal(t.Context(), k)
	if err != nil || same[0].Period != 10 || !bytes.Equal(same[0].Blob, k[0].Blob) {
		t.Errorf("once more: %+v %v", same, err)
	}
	if n := everything(t, token); n != before {
		t.Errorf("%d objects before, %d after", before, n)
	}
	moved.req.Sealed = k[0]
	for _, s := range []sealedCase{moved, old, left} { // the old blob still loads
		if err := s.check(token); err != nil {
			t.Error(err)
		}
	}
	if err := token.DestroySealingKey(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if err := moved.check(token); err != nil {
		t.Error(err)
	}
	for _, s := range []sealedCase{old, left} {
		if err := s.check(token); !errors.Is(err, ErrKeyMissing) {
			t.Errorf("under a destroyed sealing key: %v", err)
		}
	}
	if n := everything(t, token); n != before { // one sealing key less, one live key more
		t.Errorf("%d objects before, %d after", before, n)
	}
	if err := token.DestroySealingKey(t.Context(), 3); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("twice: %v", err)
	}
	if err := token.DestroySealingKey(t.Context(), 10); !errors.Is(err, ErrRefused) {
		t.Errorf("the newest: %v", err)
	}
	if periods, err := token.SealingKeys(t.Context()); err != nil || !slices.Equal(periods, []uint32{10}) {
		t.Errorf("%v %v", periods, err)
	}
	if _, err := token.Reseal(t.Context(), []SealedKey{left.req.Sealed}); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("under a destroyed sealing key: %v", err)
	}
}

func TestPoolSealed(t *testing.T) {
	profile, public := sealedCeremony(t, 1, 2)
	p := pool(t, profile, nil)
	if periods, err := p.SealingKeys(t.Context()); err != nil || !slices.Equal(periods, []uint32{1, 2}) {
		t.Fatalf("%v %v", periods, err)
	}
	cases := make([]sealedCase, 5)
	var all sync.WaitGroup
	for i := range cases {
		all.Go(func() { cases[i] = importedSealed(t, p, public) })
	}
	all.Wait()
	_, err := p.ImportSealed(t.Context(), newID(), OAEPDirect, make([]byte, 384))
	if !errors.Is(err, ErrBadInput) {
		t.Errorf("garbage: %v", err)
	}
	for _, s := range cases {
		for range 10 {
			if err := s.check(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	gone := cases[0]
	if err := p.Forget(t.Context(), gone.req.Key); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := gone.check(p); !errors.Is(err, ErrKeyMissing) {
			t.Fatalf("forgotten: %v", err)
		}
	}
	if _, err := p.ImportSealed(t.Context(), gone.req.Key, OAEPDirect, wrappedKey(t, public, gone.key)); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := gone.check(p); err != nil {
			t.Fatalf("imported again: %v", err)
		}
	}
	if err := p.DestroySealingKey(t.Context(), 2); !errors.Is(err, ErrRefused) {
		t.Errorf("the newest: %v", err)
	}
	if err := p.DestroySealingKey(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if err := p.DestroySealingKey(t.Context(), 1); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("twice: %v", err)
	}
	if k, err := p.Reseal(t.Context(), []SealedKey{gone.req.Sealed}); err != nil || k[0].Period != 2 {
		t.Errorf("%+v %v", k, err)
	}
	for _, s := range cases {
		if err := s.check(p); err != nil {
			t.Error(err)
		}
	}
}
