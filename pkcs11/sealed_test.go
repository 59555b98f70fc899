package pkcs11

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

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
	SealingKeys(context.Context) ([]uint32, int, error)
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
	if periods, _, err := token.SealingKeys(t.Context()); err != nil || !slices.Equal(periods, []uint32{3, 10}) {
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
	if periods, _, err := token.SealingKeys(t.Context()); err != nil || !slices.Equal(periods, []uint32{10}) {
		t.Errorf("%v %v", periods, err)
	}
	if _, err := token.Reseal(t.Context(), []SealedKey{left.req.Sealed}); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("under a destroyed sealing key: %v", err)
	}
}

func TestPoolSealed(t *testing.T) {
	profile, public := sealedCeremony(t, 1, 2)
	p := pool(t, profile, nil)
	if periods, _, err := p.SealingKeys(t.Context()); err != nil || !slices.Equal(periods, []uint32{1, 2}) {
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

// officerComes makes a sealing key from another process, while the token is open here.
func officerComes(t *testing.T, p Profile, period uint32) {
	t.Helper()
	config, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	officer := exec.Command(executable)
	officer.Env = []string{"SALLYPORT_TEST_PLAYS=officer", "SALLYPORT_TEST_CONFIG=" + string(config),
		fmt.Sprint("SALLYPORT_TEST_PERIOD=", period), "SOFTHSM2_CONF=" + os.Getenv("SOFTHSM2_CONF")}
	if out, err := officer.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A whole change of period while workers live, under load: what was moved is
// read throughout, with its old blob or its new one; what was not is gone.
func TestPoolChangesPeriod(t *testing.T) {
	profile, public := sealedCeremony(t, 1)
	p := pool(t, profile, nil)
	kept, left := importedSealed(t, p, public), importedSealed(t, p, public)
	var now atomic.Pointer[SealedKey]
	now.Store(&kept.req.Sealed)
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 3 {
		load.Go(func() {
			for s := kept; !ended(stop); {
				s.req.Sealed = *now.Load()
				if err := s.check(p); err != nil {
					t.Errorf("under period %d: %v", s.req.Sealed.Period, err)
					return
				}
			}
		})
	}
	if err := left.check(p); err != nil {
		t.Error(err)
	}
	officerComes(t, profile, 2)
	if k, err := p.Reseal(t.Context(), []SealedKey{kept.req.Sealed}); err != nil || k[0].Period != 1 {
		t.Errorf("before the new key was looked for: %+v %v", k, err)
	}
	if periods, _, err := p.SealingKeys(t.Context()); err != nil || !slices.Equal(periods, []uint32{1, 2}) {
		t.Fatalf("%v %v", periods, err)
	}
	for range 4 { // by each worker
		if s := importedSealed(t, p, public); s.req.Sealed.Period != 2 {
			t.Errorf("sealed under period %d", s.req.Sealed.Period)
		} else if err := s.check(p); err != nil {
			t.Error(err)
		}
	}
	k, err := p.Reseal(t.Context(), []SealedKey{kept.req.Sealed})
	if err != nil || k[0].Period != 2 {
		t.Fatalf("%+v %v", k, err)
	}
	now.Store(&k[0])
	close(stop) // the vault lets what is under way with old blobs end
	load.Wait()
	stop = make(chan struct{})
	for range 3 {
		load.Go(func() {
			for s := kept; !ended(stop); {
				s.req.Sealed = *now.Load()
				if err := s.check(p); err != nil {
					t.Errorf("while the old sealing key is destroyed: %v", err)
					return
				}
			}
		})
	}
	if err := p.DestroySealingKey(t.Context(), 1); err != nil {
		t.Error(err)
	}
	for range 20 {
		for _, s := range []sealedCase{kept, left} { // kept.req has its old blob
			if err := s.check(p); !errors.Is(err, ErrKeyMissing) {
				t.Fatalf("an old blob: %v", err)
			}
		}
	}
	close(stop)
	load.Wait()
}

// Keys are forgotten while workers die and join: no straggler loads one again.
func TestPoolForgetsWhileWorkersJoin(t *testing.T) {
	profile, public := sealedCeremony(t, 1)
	p := pool(t, profile, nil)
	stop := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		for !ended(stop) {
			if pids := p.pids(); len(pids) == 2 {
				_ = syscall.Kill(pids[0], syscall.SIGKILL)
			}
			time.Sleep(150 * time.Millisecond)
		}
	})
	lost := func(err error) bool { return errors.Is(err, ErrTokenBroken) }
	for range 25 {
		s := sealedCase{key: newKey(t)}
		id := newID()
		var err error
		for range 5 { // an import that died with its worker left nothing, and is sent again
			if s.req.Sealed, err = p.ImportSealed(background, id, OAEPDirect, wrappedKey(t, public, s.key)); !lost(err) {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		k := s.req.Sealed
		s.req, s.want = request(t, id, s.key)
		s.req.Sealed = k
		for range 5 {
			if err = s.check(p); !lost(err) {
				break
			}
		}
		if err != nil {
			t.Error(err)
		}
		var forgotten atomic.Bool
		var stragglers sync.WaitGroup
		for range 4 {
			stragglers.Go(func() {
				for range 10 {
					before := forgotten.Load()
					if err := s.check(p); err == nil && before {
						t.Error("derived after it was forgotten")
					}
				}
			})
		}
		if err := p.Forget(background, id); err != nil {
			t.Error(err)
		}
		forgotten.Store(true)
		stragglers.Wait()
	}
	close(stop)
	killer.Wait()
}

// What a refused import leaves, in the token and in the sessions, is nothing.
func TestImportSealedRefuses(t *testing.T) {
	token, public := readySealed(t, nil, 1)
	key := newKey(t)
	flipped := wrappedKey(t, public, key)
	flipped[200] ^= 4
	good := pkcs8(t, oidP256, key.Bytes())
	for _, c := range []struct {
		name, path string
		blob       []byte
	}{
		{"nothing", OAEPDirect, nil},
		{"garbage", OAEPDirect, bytes.Repeat([]byte{7}, importBits/8)},
		{"too short", OAEPDirect, flipped[1:]},
		{"flipped bit", OAEPDirect, flipped},
		{"another path", "rsa-aes-key-wrap", wrappedKey(t, public, key)},
		{"P-384", OAEPDirect, wrapped(t, public, pkcs8(t, oidP384, bytes.Repeat([]byte{3}, 48)))},
		{"P-384 scalar of 32 bytes", OAEPDirect, wrapped(t, public, pkcs8(t, oidP384, bytes.Repeat([]byte{3}, 32)))},
		{"zero", OAEPDirect, wrapped(t, public, pkcs8(t, oidP256, make([]byte, 32)))},
		{"n", OAEPDirect, wrapped(t, public, pkcs8(t, oidP256, orderN.Bytes()))},
		{"empty scalar", OAEPDirect, wrapped(t, public, pkcs8(t, oidP256, nil))},
		{"cut PKCS#8", OAEPDirect, wrapped(t, public, good[:40])},
		{"bare scalar", OAEPDirect, wrapped(t, public, key.Bytes())},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := everything(t, token)
			k, err := token.ImportSealed(t.Context(), newID(), c.path, c.blob)
			if !errors.Is(err, ErrBadInput) || len(k.Blob) > 0 {
				t.Errorf("%d bytes, %v", len(k.Blob), err)
			}
			if after := everything(t, token); after != before {
				t.Errorf("%d objects before, %d after", before, after)
			}
		})
	}
	// A resident key's blob is for another import key.
	r, err := token.Generate(t.Context(), ImportResident)
	if err != nil {
		t.Fatal(err)
	}
	before := everything(t, token)
	if _, err := token.ImportSealed(t.Context(), newID(), OAEPDirect, wrappedKey(t, importKey(t, r), key)); !errors.Is(err, ErrBadInput) {
		t.Errorf("for the other custody: %v", err)
	}
	if after := everything(t, token); after != before {
		t.Errorf("%d objects before, %d after", before, after)
	}
	if err := importedSealed(t, token, public).check(token); err != nil {
		t.Errorf("a good key afterwards: %v", err)
	}
}

// Without a sealing key nothing can be sealed; with a lax one nothing is.
func TestImportSealedNeedsSealingKey(t *testing.T) {
	token, public := readySealed(t, nil)
	if _, err := token.ImportSealed(t.Context(), newID(), OAEPDirect, wrappedKey(t, public, newKey(t))); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("without a sealing key: %v", err)
	}
	if periods, _, err := token.SealingKeys(t.Context()); err != nil || len(periods) != 0 {
		t.Errorf("%v %v", periods, err)
	}
	if err := token.DestroySealingKey(t.Context(), 1); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("destroying none: %v", err)
	}
}

// Killed in the middle of imports: a session object ends with its process, so
// that the token holds afterwards what it held before.
func TestPoolKilledWhileItImportsSealed(t *testing.T) {
	profile, public := sealedCeremony(t, 1)
	token := open(t, profile, User, 1)
	before := objects(t, token)
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	p := pool(t, profile, func(c *PoolConfig) { c.Workers = 3 })
	died := 0
	for range 10 {
		key, id := newKey(t), newID()
		blob := wrappedKey(t, public, key)
		stop := make(chan struct{})
		var killer sync.WaitGroup
		killer.Go(func() {
			time.Sleep(rand.N(12 * time.Millisecond))
			for _, pid := range p.pids() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			close(stop)
		})
		k, err := p.ImportSealed(background, id, OAEPDirect, blob)
		<-stop
		killer.Wait()
		for range 5 {
			if !errors.Is(err, ErrTokenBroken) {
				break
			}
			died++
			k, err = p.ImportSealed(background, id, OAEPDirect, blob)
		}
		if err != nil {
			t.Fatal(err)
		}
		s := sealedCase{key: key}
		s.req, s.want = request(t, id, key)
		s.req.Sealed = k
		for range 5 {
			if err = s.check(p); !errors.Is(err, ErrTokenBroken) {
				break
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d imports died with their worker, and with the next", died)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	token = open(t, profile, User, 1)
	defer token.Close()
	if after := objects(t, token); after != before {
		t.Errorf("%d objects before, %d after", before, after)
	}
}

// Unwrapped keys count toward the end of a worker, as derives do.
func TestPoolRecyclesForUnwraps(t *testing.T) {
	profile, public := sealedCeremony(t, 1)
	p := pool(t, profile, func(c *PoolConfig) { c.Workers, c.RecycleAfter = 1, 60 })
	before := p.pids()[0]
	for range 25 { // two unwraps each, one of them by the sealing key, and no Derive
		importedSealed(t, p, public)
	}
	if p.pids()[0] != before {
		t.Fatal("replaced too early")
	}
	for range 10 {
		importedSealed(t, p, public)
	}
	eventually(t, "another process", func() bool {
		now := p.pids()
		return len(now) == 1 && now[0] != before
	})
}
