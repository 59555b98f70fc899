package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/internal/sealed"
	"github.com/sallyport/sallyport/vault/keylog"
)

// sealedWorld makes grants of custody sealed, and looks for new sealing keys all the time.
func sealedWorld(t testing.TB) *world {
	w := newWorld(t)
	w.custody, w.check = policies.CustodySealed, 5*time.Millisecond
	w.restart(true)
	return w
}

// until waits for something that the mover does.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for begin := time.Now(); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// moved waits until one sealing key is left, and everything is under it.
func (w *world) moved(period uint32) {
	w.t.Helper()
	until(w.t, fmt.Sprintf("sealing key %d alone is left", period), func() bool { return slices.Equal(w.token.periods(), []uint32{period}) })
	for p, n := range w.vault.sealing.store.Periods() {
		if p != period {
			w.t.Errorf("%d keys are under sealing key %d, which is destroyed", n, p)
		}
	}
}

// log is what a vault logs, for reading.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *log) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.buf.String(), text)
}

func (w *world) keysFile() string { return filepath.Join(w.dir, "keys", "sealed-keys.1") }

// granted makes an owner with fields and a grant for each.
func (w *world) granted(r *reader, n int) []ask {
	o := w.owner()
	var asks []ask
	for i := range n {
		o.seal(policies.Field(fmt.Sprintf("own/f%03d", i)), 1, fmt.Sprint(i))
	}
	o.publish()
	for i := range n {
		f := policies.Field(fmt.Sprintf("own/f%03d", i))
		asks = append(asks, ask{o, o.grant(r, nil, f), f, 0})
	}
	return asks
}

// readAll reads each and compares.
func readAll(t testing.TB, r *reader, asks []ask) {
	t.Helper()
	answer := r.read(asks...)
	for i := range asks {
		if got := r.value(asks[i], answer.Items[i]); "own/f"+fmt.Sprintf("%03s", got) != string(asks[i].field) {
			t.Errorf("%s reads as %q", asks[i].field, got)
		}
	}
}

// TestDecoys: keys in the token that only call themselves sealing keys stop neither start nor mover, and health and log say that they are there.
func TestDecoys(t *testing.T) {
	w := sealedWorld(t)
	said := new(log)
	w.said = said
	decoys := func(n int) {
		w.token.mu.Lock()
		defer w.token.mu.Unlock()
		w.token.decoys = n
	}
	decoys(2)
	w.restart(true)
	r := w.reader()
	asks := w.granted(r, 3)
	w.token.newSealingKey()
	w.moved(2)
	readAll(t, r, asks)
	if h := w.vault.Health().Sealing; h.Decoys != 2 || h.Period != 2 {
		t.Errorf("health %+v", h)
	}
	if !said.has("call themselves sealing keys") {
		t.Error("the vault's log does not say so")
	}
	decoys(0)
	w.token.newSealingKey()
	w.moved(3)
	if h := w.vault.Health().Sealing; h.Decoys != 0 {
		t.Errorf("when they are gone: %+v", h)
	}
}

// TestNextSealingKey: everything moves to it, the one before is destroyed, and the log says so.
func TestNextSealingKey(t *testing.T) {
	w := sealedWorld(t)
	r := w.reader()
	const n = 2*moveBatch + 5
	asks := w.granted(r, n)
	readAll(t, r, asks)
	before, err := os.ReadFile(w.keysFile())
	must(t, err)
	w.token.newSealingKey()
	w.moved(2)
	readAll(t, r, asks)
	h := w.vault.Health()
	if h.Sealed != n || h.Resident != 0 || h.Keys != n || h.Sealing.Period != 2 || h.Sealing.Older != 0 || h.Sealing.Missing != 0 || len(h.Custodies) != 2 {
		t.Errorf("health %+v, %+v", h, h.Sealing)
	}
	var entries []evidence.Details
	for _, record := range w.records() {
		if record.Kind == evidence.EntrySealing {
			entries = append(entries, record.Details)
		}
		if record.Kind == evidence.EntryUse && record.Details.Custody != policies.CustodySealed {
			t.Error("a use does not name its custody")
		}
	}
	if len(entries) != 1 || entries[0].Period != 1 || entries[0].Count != n || entries[0].Custody != policies.CustodySealed {
		t.Errorf("recorded as %+v", entries)
	}
	w.restart(false)
	readAll(t, r, asks)

	// What the host kept from before is of no use any more.
	w.kill()
	must(t, os.WriteFile(w.keysFile(), before, 0o600))
	said := new(log)
	w.said = said
	w.reopen(true)
	for _, item := range r.read(asks...).Items {
		if item.Outcome != policies.CodeKeyMissing {
			t.Fatalf("a copy from before: %s", string(item.Outcome))
		}
	}
	if !said.has("sealing keys that the token does not have") || !said.has(w.keysFile()) {
		t.Error("the start does not say that keys are lost")
	}
}

// TestMoveCrashAnywhere kills the vault around every step of a move, and once more in the move that goes on.
func TestMoveCrashAnywhere(t *testing.T) {
	w := sealedWorld(t)
	r := w.reader()
	asks := w.granted(r, moveBatch+3)
	revoked := asks[len(asks)-1]
	asks = asks[:len(asks)-1]
	revoked.o.revoke(revoked.grant, revoked.field)
	var crashes []*world
	note := func(string) error { crashes = append(crashes, w.snapshot(t)); return nil }
	w.token.hook = note
	w.logKey.hook = func() error { return note("") }
	w.token.newSealingKey()
	w.moved(2)
	w.kill()
	if len(crashes) < 7 {
		t.Fatalf("only %d places to crash", len(crashes))
	}
	for i, c := range crashes {
		ro := *r
		ro.w = c
		c.check = time.Hour
		c.reopen(true) // and killed in the middle of going on, which begins at once
		readAll(t, &ro, asks)
		c.kill()
		c.check = 5 * time.Millisecond
		c.reopen(i%2 == 0)
		c.moved(2)
		readAll(t, &ro, asks)
		if c.held() != len(asks) {
			t.Errorf("crash %d: %d keys for %d grants", i, c.held(), len(asks))
		}
		if got := ro.read(revoked).Items[0].Outcome; got != policies.CodeRevoked {
			t.Errorf("crash %d: the revoked one: %s", i, string(got))
		}
		c.kill()
	}
}

// TestRevocationDuringAMove: whenever it comes, it wins, and the key does not return.
func TestRevocationDuringAMove(t *testing.T) {
	for _, when := range []string{"reseal", "resealed", "destroy sealing key"} {
		t.Run(when, func(t *testing.T) {
			w := sealedWorld(t)
			r := w.reader()
			asks := w.granted(r, 5)
			once := new(atomic.Bool)
			w.token.hook = func(op string) error {
				if op == when && once.CompareAndSwap(false, true) {
					asks[2].o.revoke(asks[2].grant, asks[2].field)
				}
				return nil
			}
			w.token.newSealingKey()
			w.moved(2)
			for range 2 {
				if w.held() != 4 || w.holds(keyID(asks[2].grant.ID, asks[2].field, policies.AuthorID(asks[2].o.id))) {
					t.Errorf("%d keys are stored", w.held())
				}
				if got := r.read(asks[2]).Items[0].Outcome; got != policies.CodeRevoked {
					t.Errorf("the revoked one: %s", string(got))
				}
				readAll(t, r, append(slices.Clone(asks[:2]), asks[3:]...))
				w.restart(false)
			}
		})
	}
}

// TestImportDuringAMove: a key that was sealed under the older sealing key just before it ends is stored before the mover looks for the last ones.
func TestImportDuringAMove(t *testing.T) {
	w := sealedWorld(t)
	r := w.reader()
	asks := w.granted(r, 2)
	w.token.hook = func(op string) error {
		if op == "imported" { // sealed under 1, not stored yet
			w.token.newSealingKey()
			time.Sleep(100 * time.Millisecond) // in which the mover would be done with all of it, did it not wait
			if !slices.Equal(w.token.periods(), []uint32{1, 2}) {
				t.Error("the older sealing key is gone before a key under it was stored")
			}
		}
		return nil
	}
	o := asks[0].o
	again := ask{o, o.grant(r, nil, "own/f000"), "own/f000", 0}
	w.moved(2)
	readAll(t, r, append(asks, again))
}

// TestUseDuringAMove: a use that has the key under the older sealing key when that is destroyed gets it again.
func TestUseDuringAMove(t *testing.T) {
	w := sealedWorld(t)
	r := w.reader()
	asks := w.granted(r, 3)
	once := new(atomic.Bool)
	w.token.hook = func(op string) error {
		if op == "derive" && once.CompareAndSwap(false, true) {
			w.token.newSealingKey()
			w.moved(2)
		}
		return nil
	}
	readAll(t, r, asks)
	if !once.Load() || w.token.count() != 6 {
		t.Fatalf("the token was asked for %d uses", w.token.count())
	}
	for _, record := range w.records() {
		if record.Kind == evidence.EntryFailed {
			t.Error("a failure is on record, and there was none")
		}
	}
}

// TestEverythingAtOnce: owners grant and revoke, readers read, and sealing keys come and go. No key is lost or doubled, and a revoked one never returns.
func TestEverythingAtOnce(t *testing.T) {
	w := sealedWorld(t)
	const owners = 3
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var reads, refused atomic.Int64
	kept := make([][]ask, owners)
	gone := make([][]ask, owners)
	for i := range owners {
		o, r := w.owner(), w.reader()
		o.set("name", "n")
		wg.Go(func() {
			standing := ask{o, o.grant(r, nil, "name"), "name", 0}
			kept[i] = append(kept[i], standing)
			for turn := 0; ; turn++ {
				select {
				case <-stop:
					return
				default:
				}
				g := ask{o, o.grant(r, nil, "name"), "name", 0}
				answer := r.read(standing, g)
				for k, a := range []ask{standing, g} {
					if answer.Items[k].Outcome != policies.CodeReleased || r.value(a, answer.Items[k]) != "n" {
						t.Errorf("turn %d: %s", turn, string(answer.Items[k].Outcome))
					}
				}
				reads.Add(1)
				if turn%2 == 1 {
					kept[i] = append(kept[i], g)
					continue
				}
				o.revoke(g.grant, "name")
				gone[i] = append(gone[i], g)
				if got := r.read(g).Items[0].Outcome; got != policies.CodeRevoked {
					t.Errorf("turn %d: a revoked grant: %s", turn, string(got))
				}
				refused.Add(1)
			}
		})
	}
	const last = 8
	for period := uint32(2); period <= last; period++ {
		time.Sleep(100 * time.Millisecond)
		w.token.newSealingKey()
		until(t, "the move", func() bool { return slices.Equal(w.token.periods(), []uint32{period}) })
	}
	close(stop)
	wg.Wait()
	if reads.Load() < 10 || refused.Load() < 5 {
		t.Fatalf("%d reads and %d revocations: nothing happened", reads.Load(), refused.Load())
	}
	for _, database := range []bool{true, false} {
		want := 0
		for i := range owners {
			for _, a := range kept[i] {
				want++
				if !w.holds(keyID(a.grant.ID, "name", policies.AuthorID(a.o.id))) {
					t.Error("a key in force is not stored")
				}
			}
			for _, a := range gone[i] {
				if w.holds(keyID(a.grant.ID, "name", policies.AuthorID(a.o.id))) {
					t.Error("a revoked key is stored")
				}
			}
		}
		if w.held() != want {
			t.Errorf("%d keys for %d grants", w.held(), want)
		}
		w.moved(last)
		w.restart(database)
	}
}

// TestDamagedKeys: a value that was changed is one key that is missing. The start says so and names the file; the others serve; the mover gives it up
// after a while, so that it cannot keep the older sealing key for ever.
func TestDamagedKeys(t *testing.T) {
	w := sealedWorld(t)
	w.check = time.Hour
	w.restart(true)
	r := w.reader()
	asks := w.granted(r, 4)
	w.kill()
	data, err := os.ReadFile(w.keysFile())
	must(t, err)
	const slot = 512
	data[1*slot+100] ^= 1
	copy(data[2*slot+40:3*slot], data[3*slot+40:4*slot]) // another's key under an id
	must(t, os.WriteFile(w.keysFile(), data, 0o600))
	said := new(log)
	w.said, w.check = said, 5*time.Millisecond
	w.reopen(true)
	if !said.has("sealed keys of grants in force are lost") || !said.has(w.keysFile()) {
		t.Error("the start does not say what is lost, and where")
	}
	missing := func() {
		t.Helper()
		answer := r.read(asks...)
		for i := range asks {
			if i == 1 || i == 2 {
				if answer.Items[i].Outcome != policies.CodeKeyMissing {
					t.Errorf("damaged key %d: %s", i, string(answer.Items[i].Outcome))
				}
			} else {
				r.value(asks[i], answer.Items[i])
			}
		}
	}
	missing()
	if h := w.vault.Health(); h.Sealing.Missing != 2 {
		t.Errorf("health %+v", h.Sealing)
	}
	w.token.newSealingKey()
	w.moved(2) // what does not open at the start is in nobody's way
	missing()
	// One that opens and does not unwrap is.
	k, err := w.vault.sealing.store.Get(sealed.ID(keyID(asks[0].grant.ID, asks[0].field, policies.AuthorID(asks[0].o.id))))
	must(t, err)
	k.Blob[5] ^= 1
	must(t, w.vault.sealing.store.Put(sealed.ID(keyID(asks[0].grant.ID, asks[0].field, policies.AuthorID(asks[0].o.id))), k))
	var reseals, before atomic.Int64
	w.token.hook = func(op string) error {
		switch op {
		case "reseal":
			reseals.Add(1)
		case "destroy sealing key":
			before.Store(reseals.Load())
		}
		return nil
	}
	w.token.newSealingKey()
	until(t, "the end of the older sealing key", func() bool { return slices.Equal(w.token.periods(), []uint32{3}) })
	// Both keys at once, each for itself, and then at each further check the one that does not unwrap.
	if before.Load() != 2+giveUp || !said.has("1 of them do not unwrap") {
		t.Errorf("the older sealing key went after %d attempts", before.Load())
	}
	r.value(asks[3], r.read(asks[3]).Items[0])
	// The owner grants anew.
	o := asks[1].o
	again := ask{o, o.grant(r, nil, asks[1].field), asks[1].field, 0}
	readAll(t, r, []ask{again})
}

// TestOldKeysFile: a copy of the keys from before a revocation is put back. The ledger says what is in force, and the start removes the rest.
func TestOldKeysFile(t *testing.T) {
	w := sealedWorld(t)
	r := w.reader()
	asks := w.granted(r, 3)
	old, err := os.ReadFile(w.keysFile())
	must(t, err)
	asks[1].o.revoke(asks[1].grant, asks[1].field)
	w.kill()
	must(t, os.WriteFile(w.keysFile(), old, 0o600))
	w.reopen(true)
	if got := r.read(asks[1]).Items[0].Outcome; got != policies.CodeRevoked {
		t.Fatalf("the revoked one: %s", string(got))
	}
	if w.held() != 2 {
		t.Errorf("%d keys", w.held())
	}
	readAll(t, r, []ask{asks[0], asks[2]})
	data, err := os.ReadFile(w.keysFile())
	must(t, err)
	used := 0
	for at := 0; at < len(data); at += 512 {
		if !bytes.Equal(data[at:at+512], make([]byte, 512)) {
			used++
		}
	}
	if used != 2 {
		t.Errorf("%d slots of the file are in use", used)
	}

	w.kill()
	must(t, os.Remove(w.keysFile()))
	w.reopen(true)
	for _, item := range r.read(asks[0], asks[2]).Items {
		if item.Outcome != policies.CodeKeyMissing {
			t.Errorf("without the file: %s", string(item.Outcome))
		}
	}
}

// TestDestroyedNamesThePeriod: the record of a destruction says with which sealing key a kept copy dies, also when a crash came before the record.
func TestDestroyedNamesThePeriod(t *testing.T) {
	w := sealedWorld(t)
	r := w.reader()
	asks := w.granted(r, 3)
	w.token.newSealingKey()
	w.moved(2)
	last := func() evidence.Details {
		var d evidence.Details
		for _, record := range w.records() {
			if record.Kind == evidence.EntryDestroyed {
				d = record.Details
			}
		}
		return d
	}
	asks[0].o.revoke(asks[0].grant, asks[0].field)
	if d := last(); d.Custody != policies.CustodySealed || d.Period != 2 {
		t.Errorf("recorded %+v", d)
	}
	// The store deletes, and then the log takes nothing: the vault dies there.
	log, away := filepath.Join(w.dir, "log"), filepath.Join(w.dir, "away")
	w.token.hook = func(op string) error {
		if op == "forgot" {
			return os.Rename(log, away)
		}
		return nil
	}
	s, hash := asks[1].o.revocationOf(nil, asks[1].grant, asks[1].field)
	if _, err := w.submit(s); err == nil {
		t.Fatal("acknowledged without a record")
	}
	w.token.hook = nil
	must(t, os.Rename(away, log))
	w.restart(false)
	if d := last(); d.Document != hash || d.Custody != policies.CustodySealed || d.Period != 2 {
		t.Errorf("recorded %+v", d)
	}
	w.accepted(s)
	asks[1].o.seq, asks[1].o.prev = asks[1].o.seq+1, hash

	// A revocation of both custodies names the one about which there is more to say.
	w.custody = policies.CustodyResident
	o := asks[2].o
	resident := o.grant(r, nil, "own/f000")
	s, _ = o.revocationOf(func(d *policies.Revocation) {
		d.Items = append(d.Items, policies.RevokedItem{Grant: asks[2].grant.ID, Field: asks[2].field, Author: policies.AuthorID(o.id)})
	}, resident, "own/f000")
	w.accepted(s)
	if d := last(); d.Custody != policies.CustodySealed || d.Period != 2 {
		t.Errorf("recorded %+v", d)
	}
	if w.custody = policies.CustodySealed; w.held() != 0 || len(w.token.keys) != 0 {
		t.Error("a key is left")
	}
}

// TestCustodiesOffered: what the vault document offers is what the vault takes; what it once offered it keeps serving.
func TestCustodiesOffered(t *testing.T) {
	w := newWorld(t)
	both := w.document.Tokens[0].ImportKeys
	offer := func(keys ...policies.ImportKey) {
		w.kill()
		w.document.Tokens[0].ImportKeys = keys
		w.reopen(true)
	}
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	refused := func() {
		t.Helper()
		s, _, _ := o.grantOf(r, func(g *granting) {
			for _, k := range both {
				if k.Custody == w.custody {
					g.doc.Fields[0].Keys[0].ImportKey = policies.HashKey(k.PublicKey)
				}
			}
		}, "name")
		if _, err := w.submit(s); problem.Of(err).Code != policies.CodeCustody {
			t.Errorf("custody %s, which is not offered: %v", w.custody, err)
		}
	}
	w.custody = policies.CustodySealed
	sealedGrant := ask{o, o.grant(r, nil, "name"), "name", 0}
	offer(both[0])
	refused()
	r.value(sealedGrant, r.read(sealedGrant).Items[0])
	w.custody = policies.CustodyResident
	residentGrant := ask{o, o.grant(r, nil, "name"), "name", 0}
	offer(both[1])
	refused()
	for _, a := range []ask{sealedGrant, residentGrant} {
		r.value(a, r.read(a).Items[0])
	}
	w.kill()

	fails := func(name, want string, change func(*Config)) {
		t.Helper()
		cfg := w.config()
		change(&cfg)
		var err error
		cfg.Log, err = keylog.Open(t.Context(), w.logConfig())
		must(t, err)
		defer cfg.Log.Close()
		v, err := Open(t.Context(), cfg)
		if err == nil {
			v.Close(context.Background())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want a word on %s", name, err, want)
		}
	}
	fails("sealed offered, nowhere to keep keys", "`keys`", func(c *Config) { c.Keys = "" })
	w.document.Tokens[0].ImportKeys = both[:1]
	fails("sealed in force, nowhere to keep keys", "`keys`", func(c *Config) { c.Keys = "" })
	w.document.Tokens[0].ImportKeys = both
	none := newSoftToken()
	clear(none.sealing)
	fails("no sealing key", "no sealing key", func(c *Config) { c.Token = none })
	must(t, os.Remove(w.keysFile()))
	must(t, os.Mkdir(w.keysFile(), 0o700))
	fails("a folder in the file's place", w.keysFile(), func(*Config) {})
	must(t, os.Remove(w.keysFile()))
	w.reopen(true)
}

// TestKeysThatCannotBeStored: the disk is nearly full. The owner is told to try again, nothing is half done, and reads go on.
func TestKeysThatCannotBeStored(t *testing.T) {
	w := sealedWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	first := ask{o, o.grant(r, nil, "name"), "name", 0}
	w.kill()
	full := func() (err error) {
		cfg := w.config()
		cfg.Reserve = 1 << 62
		if cfg.Log, err = keylog.Open(t.Context(), w.logConfig()); err == nil {
			w.log = cfg.Log
			w.vault, err = Open(context.Background(), cfg)
		}
		return err
	}
	must(t, full())
	// The file has free slots, which need no room. They are taken first.
	var wg sync.WaitGroup
	for i := range 1023 {
		wg.Go(func() {
			if err := w.vault.sealing.store.Put(sealed.ID{1, byte(i), byte(i >> 8)}, sealed.Key{Period: 1, Blob: []byte{1}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, _, hash := o.grantOf(r, nil, "name")
	if _, err := w.submit(s); problem.Of(err).Code != policies.CodeUnavailable {
		t.Fatalf("without room: %v", err)
	}
	r.value(first, r.read(first).Items[0])
	if h := w.vault.Health(); h.Status != "degraded" || h.Reason != keysFull {
		t.Errorf("health %+v", h)
	}
	w.restart(true)
	w.accepted(s)
	o.seq, o.prev = o.seq+1, hash
	if w.held() != 2 {
		t.Errorf("%d keys", w.held())
	}
}

// readOnlyKeys makes every write to the open file of sealed keys fail, and no read.
func (w *world) readOnlyKeys() {
	w.t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	must(w.t, err)
	for _, fd := range fds {
		if at, err := os.Readlink(fd); err != nil || at != w.keysFile() {
			continue
		}
		n, err := strconv.Atoi(filepath.Base(fd))
		must(w.t, err)
		f, err := os.Open(w.keysFile())
		must(w.t, err)
		must(w.t, unix.Dup3(int(f.Fd()), n, unix.O_CLOEXEC))
		must(w.t, f.Close())
		return
	}
	w.t.Fatal("the file of sealed keys is not open")
}

// TestKeysFileThatCannotBeWritten: the health says that custody sealed is at a standstill and what ends that, owners are told too, everything else goes on, and a
// restart finishes what was begun.
func TestKeysFileThatCannotBeWritten(t *testing.T) {
	w := sealedWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	kept, ended := ask{o, o.grant(r, nil, "name"), "name", 0}, ask{o, o.grant(r, nil, "name"), "name", 0}
	if h := w.vault.Health(); h.Status != "ok" || h.Reason != "" {
		t.Fatalf("at first: %+v", h)
	}
	w.readOnlyKeys()

	revocation, hash := o.revocationOf(nil, ended.grant, "name")
	_, err := w.submit(revocation)
	if p := problem.Of(err); p.Code != policies.CodeTokenFailure || !strings.Contains(p.Detail, "started the vault again") {
		t.Errorf("a revocation: %v", err)
	}
	o.seq, o.prev = o.seq+1, hash
	h := w.vault.Health()
	if h.Status != "degraded" || h.Reason != keysStopped || !h.Sealing.Stopped {
		t.Errorf("health %+v, %+v", h, h.Sealing)
	}
	if item := r.read(ended).Items[0]; item.Outcome != policies.CodeRevoked {
		t.Errorf("a read under the revoked grant: %s", item.Outcome)
	}
	r.value(kept, r.read(kept).Items[0])
	s, _, _ := o.grantOf(r, nil, "name")
	if p := problem.Of(func() error { _, err := w.submit(s); return err }()); p.Code != policies.CodeUnavailable || !strings.Contains(p.Detail, "started the vault again") {
		t.Errorf("a grant: %v", p)
	}
	w.custody = policies.CustodyResident
	resident := ask{o, o.grant(r, nil, "name"), "name", 0}
	r.value(resident, r.read(resident).Items[0])
	o.revoke(resident.grant, "name")
	w.custody = policies.CustodySealed

	w.restart(true)
	if h := w.vault.Health(); h.Status != "ok" || h.Reason != "" || h.Sealed != 1 || w.held() != 1 {
		t.Errorf("after a restart: %+v, %d keys", h, w.held())
	}
	w.accepted(revocation)
	r.value(kept, r.read(kept).Items[0])
	o.grant(r, nil, "name")
}

// TestTokenThatSealsUnderAnOlderKey is a token that breaks its promise: the vault does not store what it would lose.
func TestTokenThatSealsUnderAnOlderKey(t *testing.T) {
	w := sealedWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	w.token.newSealingKey()
	w.moved(2)
	w.token.late = true
	s, _, _ := o.grantOf(r, nil, "name")
	if _, err := w.submit(s); !errors.Is(err, policies.CodeImport) {
		t.Fatalf("granted: %v", err)
	}
	if w.held() != 0 {
		t.Error("the key was stored")
	}
}
