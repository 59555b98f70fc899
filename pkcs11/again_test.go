package pkcs11

import (
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// rewrite makes this test binary a process that sets an attribute of every re-encryption key again and again.
var rewrite = flag.Bool("rewrite", false, "set attributes of the keys in the token that SOFTHSM2_CONF leads to, until stdin ends")

// TestRewriting is the other process of TestKeyRewritten. By itself it sets an attribute once, and the key works.
func TestRewriting(t *testing.T) {
	var token *Token
	if *rewrite {
		conf := os.Getenv("SOFTHSM2_CONF")
		p := softHSM(t) // with a folder of its own, which is not the one to write to
		p.Folder = filepath.Join(filepath.Dir(conf), "tokens")
		t.Setenv("SOFTHSM2_CONF", conf)
		token = open(t, p, User, 1)
		defer token.Close()
	} else {
		var id KeyID
		token, id = withKey(t)
		defer func() {
			if r := token.Derive(t.Context(), []DeriveRequest{{Key: id, Point: generator}}); r[0].Err != nil {
				t.Error(r[0].Err)
			}
		}()
	}
	ended := make(chan struct{})
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		close(ended)
	}()
	for {
		for _, o := range token.keys {
			err := token.do(t.Context(), token.slow, "rewriting", func(s cryptoki.Session) error {
				return token.module.SetAttributes(s, o, []cryptoki.Attribute{on(cryptoki.CKA_SIGN)})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-ended:
			return
		case <-time.After(5 * time.Millisecond):
			if !*rewrite {
				return
			}
		}
	}
}

func withKey(t *testing.T) (*Token, KeyID) {
	t.Helper()
	token, public := ready(t, 1)
	id := newID()
	if err := token.Import(t.Context(), id, OAEPDirect, wrappedKey(t, public, newKey(t))); err != nil {
		t.Fatal(err)
	}
	return token, id
}

// TestKeyRewritten: a host with the PIN sets attributes of a key all the while. Whoever uses the key gets what the key makes, and is never told
// that it is missing.
func TestKeyRewritten(t *testing.T) {
	token, id := withKey(t)
	want := token.Derive(t.Context(), []DeriveRequest{{Key: id, Point: generator}})
	if want[0].Err != nil {
		t.Fatal(want[0].Err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	host := exec.CommandContext(t.Context(), self, "-test.run", "^TestRewriting$", "-rewrite")
	var out strings.Builder
	host.Stdout, host.Stderr = &out, &out
	end, err := host.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	file, at := keyFile(t, token), time.Now()
	var changes, looks int
	changed := int64(0)
	for time.Since(at) < 20*time.Second && changes < 50 {
		got := token.Derive(t.Context(), []DeriveRequest{{Key: id, Point: generator}})
		if got[0] != want[0] {
			t.Errorf("after %d changes: %v", changes, got[0].Err)
			break
		}
		looks++
		if info, err := os.Stat(file); err == nil && info.ModTime().UnixNano() != changed {
			changes, changed = changes+1, info.ModTime().UnixNano()
		}
	}
	end.Close()
	if err := host.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	if changes < 10 {
		t.Errorf("%d changes were seen in %d derives: nothing was tested\n%s", changes, looks, &out)
	}
}

// keyFile is the file of the one re-encryption key in the token: the newest object.
func keyFile(t *testing.T, token *Token) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(token.profile.Folder, "*", "*.object"))
	if err != nil {
		t.Fatal(err)
	}
	var newest string
	var at time.Time
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(f) != "token.object" && info.ModTime().After(at) {
			newest, at = f, info.ModTime()
		}
	}
	return newest
}

// writing is a process in the middle of writing the file of an object: half of it is there. The number that the file begins with tells other
// processes that it changed. finish writes all of it.
func writing(t *testing.T, file string) (finish func()) {
	t.Helper()
	var once sync.Once
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(length int) {
		binary.BigEndian.PutUint64(whole, binary.BigEndian.Uint64(whole)+1)
		if err := os.WriteFile(file, whole[:length], 0o600); err != nil {
			t.Error(err)
		}
	}
	write(len(whole) / 2)
	finish = func() { once.Do(func() { write(len(whole)) }) }
	t.Cleanup(finish) // before the folder goes, also if a timer has yet to call it
	return finish
}

// TestKeyBeingWritten: what another process writes at that very moment is not missing, not for a derive, not for a process that listed the keys
// meanwhile, and not for whoever is to destroy it.
func TestKeyBeingWritten(t *testing.T) {
	const moment = 60 * time.Millisecond
	derive := func(token *Token, id KeyID) error {
		return token.Derive(t.Context(), []DeriveRequest{{Key: id, Point: generator}})[0].Err
	}
	t.Run("derive", func(t *testing.T) {
		token, id := withKey(t)
		finish := writing(t, keyFile(t, token))
		if _, err := token.deriveResident(token.home, &DeriveRequest{Key: id, Point: generator}); !absent(err) {
			t.Fatalf("half of its file is gone, and the key says %v: nothing is tested", err)
		}
		time.AfterFunc(moment, finish)
		if err := derive(token, id); err != nil {
			t.Error(err)
		}
	})
	t.Run("list", func(t *testing.T) {
		token, id := withKey(t)
		finish := writing(t, keyFile(t, token))
		if ids, err := token.Keys(t.Context()); err != nil || len(ids) != 0 {
			t.Fatalf("half of its file is gone, and the list is %v, %v: nothing is tested", ids, err)
		}
		time.AfterFunc(moment, finish)
		if err := derive(token, id); err != nil {
			t.Error(err)
		}
	})
	t.Run("destroy", func(t *testing.T) {
		token, id := withKey(t)
		time.AfterFunc(moment, writing(t, keyFile(t, token)))
		if err := token.Destroy(t.Context(), id); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * moment)
		if ids, err := token.Keys(t.Context()); err != nil || len(ids) != 0 {
			t.Errorf("%v, %v", ids, err)
		}
	})
	t.Run("destroy among others", func(t *testing.T) {
		token, public := ready(t, 1)
		var ids []KeyID
		for range 3 {
			ids = append(ids, newID())
			if err := token.Import(t.Context(), ids[len(ids)-1], OAEPDirect, wrappedKey(t, public, newKey(t))); err != nil {
				t.Fatal(err)
			}
		}
		time.AfterFunc(moment, writing(t, keyFile(t, token)))
		for i, err := range token.destroyKeys(t.Context(), []KeyID{ids[1], ids[2], ids[0]}, make([]KeyCheck, 3)) {
			if err != nil {
				t.Errorf("end %d: %v", i, err)
			}
		}
		time.Sleep(2 * moment)
		if ids, err := token.Keys(t.Context()); err != nil || len(ids) != 0 {
			t.Errorf("%v, %v", ids, err)
		}
	})
	t.Run("gone for good", func(t *testing.T) {
		token, id := withKey(t)
		file := keyFile(t, token)
		writing(t, file)
		start := time.Now()
		for range 128 {
			if err := derive(token, id); !errors.Is(err, ErrKeyMissing) && !errors.Is(err, ErrRefused) { // by where the file was cut
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d < 200*time.Millisecond || d > 24*time.Second {
			t.Errorf("128 derives took %v: the first looks again, the others do not", d)
		}
	})
	t.Run("forgotten", func(t *testing.T) {
		token, id := withKey(t)
		token.forget(id)
		if err := derive(token, id); !errors.Is(err, ErrKeyMissing) {
			t.Errorf("a key that was forgotten to be destroyed: %v", err)
		}
		if err := token.Destroy(t.Context(), id); err != nil {
			t.Error(err)
		}
	})
}
