package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/fault/bits"
	"github.com/sallyport/sallyport/tests/stage"
)

// flipReserve makes databases of small files, which are quick to put back.
const flipReserve = 8 << 20

// kept is everything that both daemons have on disk, and what each device knows, at one moment.
type kept struct {
	dir     string
	folders map[string]*bits.Folder // by the folder's name under the stage's
	owners  []*devices.Drawer
	readers [][2]*devices.Drawer
}

// keep takes a copy of what there is. The daemons are down.
func keep(t *testing.T, w *world) *kept {
	t.Helper()
	k := &kept{dir: w.s.Dir(), folders: map[string]*bits.Folder{}}
	for _, name := range []string{"storefront/data", "vault/database", "vault/log", "vault/state", "vault/keys", "ceremony", "token/tokens"} {
		f, err := bits.Keep(filepath.Join(k.dir, filepath.FromSlash(name)))
		must(t, err)
		k.folders[name] = f
	}
	for _, h := range w.households {
		k.owners = append(k.owners, h.owner.Drawer.Copy())
		k.readers = append(k.readers, [2]*devices.Drawer{h.readers[0].Drawer.Copy(), h.readers[1].Drawer.Copy()})
	}
	return k
}

// put makes everything as it was but for one bit in one folder; an empty name: as it was.
func (k *kept) put(name string, flip bits.Flip) error {
	for folder, f := range k.folders {
		one := flip
		if folder != name {
			one = bits.Flip{}
		}
		if err := f.Put(filepath.Join(k.dir, filepath.FromSlash(folder)), one); err != nil {
			return err
		}
	}
	return nil
}

// verdict is what came of a flipped bit.
type verdict struct {
	wrong  []string // served as data, or another thing that may never be
	refuse []string // what somebody was refused
	closed int      // of these, values that did not open
	said   string   // what the daemons, and the operator's command, said meanwhile
}

// TestFlippedFiles flips a bit in a file of either daemon, of the ceremony's folder or of the token, while both are down after a crash, and starts both.
// Whatever a reader is given is what its owner published and granted; who is refused something, a start or a value, finds the damaged file, or for an
// object of the token the key, in the output; else nothing is missing. Of a re-encryption key that SoftHSM takes for whole, although it is another one, the reader finds that the value does not
// open. With everything as it was both serve again.
func TestFlippedFiles(t *testing.T) {
	n, random := bits.Number(t, 7)
	members := fmt.Sprintf("reserve = %d\n", flipReserve)
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits, VaultMembers: members, StorefrontMembers: members})
	w := newWorld(t, s, random.Uint64())
	w.demand("before any flip", w.round(func() ([]*stage.Daemon, error) { time.Sleep(2 * time.Second); return nil, nil }))
	for _, h := range w.households { // what a reader learnt lies on its disk
		for _, r := range h.readers {
			must(t, r.Close())
		}
	}
	s.Vault.Kill()
	s.Storefront.Kill()
	k := keep(t, w)
	names := slices.Sorted(maps.Keys(k.folders))
	count := map[string][4]int{}
	for i := range n {
		name := names[i%len(names)]
		flip := k.folders[name].Draw(random)
		what := fmt.Sprintf("%s in %s", flip, name)
		must(t, k.put(name, flip))
		v := look(t, w, k, name)
		s.Vault.Kill()
		s.Storefront.Kill()
		place := count[name]
		switch {
		case len(v.wrong) > 0:
			t.Errorf("%s: %s\nsaid:\n%s", what, strings.Join(v.wrong, "; "), v.said)
		case len(v.refuse) == 0:
			place[0]++
		case named(v.said, name, flip.File):
			place[1]++
		case name == tokenFolder && len(v.refuse) == v.closed: // SoftHSM does not notice, and derives with another key
			place[2]++
		default:
			place[3]++
			t.Errorf("%s: nobody names it, and %s\nsaid:\n%s", what, strings.Join(v.refuse, "; "), v.said)
		}
		count[name] = place
		progress(t, i, n, fmt.Sprint(count))
	}
	must(t, k.put("", bits.Flip{}))
	if v := look(t, w, k, ""); len(v.wrong)+len(v.refuse) > 0 {
		t.Errorf("with everything as it was: %s %s\n%s", v.wrong, v.refuse, v.said)
	}
	for _, name := range names {
		t.Logf("%-16s %d harmless, %d detected and named, %d found by readers alone, whose values do not open", name, count[name][0], count[name][1], count[name][2])
	}
}

// tokenFolder is where SoftHSM has its objects.
const tokenFolder = "token/tokens"

// tokenKey is how output names a key of the token: by the label that the ceremony gave it, or a re-encryption key by its CKA_ID.
var tokenKey = regexp.MustCompile(`sallyport (import (resident|sealed)|log|store|sealing [0-9]+|signer state)\b|key=[0-9a-f]{64}\b`)

// named reports whether output leads to a file. In which file an object of the token lies nobody can tell: SoftHSM draws its name, and encrypts the object's. So it is the key that is
// named.
func named(said, folder, file string) bool {
	if strings.Contains(said, filepath.Base(file)) {
		return true
	}
	return folder == tokenFolder && tokenKey.MatchString(said)
}

// look starts both daemons on what lies there, has every reader read everything and an owner write, and tells what came of it.
func look(t *testing.T, w *world, k *kept, folder string) (v verdict) {
	from := map[*stage.Daemon]int64{}
	for _, d := range []*stage.Daemon{w.s.Vault, w.s.Storefront} {
		if info, err := os.Stat(d.Log); err == nil {
			from[d] = info.Size()
		}
	}
	defer func() {
		for d, at := range from {
			if data, err := os.ReadFile(d.Log); err == nil {
				v.said += string(data[min(at, int64(len(data))):])
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	refuse := func(format string, args ...any) { v.refuse = append(v.refuse, fmt.Sprintf(format, args...)) }
	if folder == "ceremony" {
		// What the daemons do not read of it, the operator's commands do.
		command := exec.CommandContext(ctx, w.s.Bin().HSM, "reissue", "--dir", w.s.Ceremony())
		command.Env = append(os.Environ(), "SOFTHSM2_CONF="+w.s.SoftHSMConf())
		out, err := command.CombinedOutput()
		v.said += string(out)
		if err != nil {
			refuse("sallyport-hsm reissue: %v", err)
		}
	}
	for _, d := range []*stage.Daemon{w.s.Vault, w.s.Storefront} {
		if err := d.Start(ctx); err != nil {
			refuse("the %s does not start", d.Name)
			v.said += err.Error()
			return v
		}
	}
	for i, h := range w.households {
		for j := range h.readers {
			w.reads(ctx, h, j, k.readers[i][j].Copy(), &v, refuse)
		}
	}
	h := w.households[0]
	owner, err := client.OpenOwner(k.owners[0].Copy(), client.Options{})
	must(t, err)
	defer owner.Close()
	if err := owner.Sync(ctx); err != nil {
		refuse("an owner's sync: %v", err)
	} else if err := owner.Set(ctx, client.Change{Field: h.fields[0], Value: []byte(h.text(h.fields[0], h.acked[h.fields[0]]))}); err != nil {
		refuse("an owner's publication: %v", err)
	}
	w.reads(ctx, h, 1, k.readers[0][1].Copy(), &v, refuse)
	return v
}

// reads has a reader read all fields, and holds them against what was acknowledged and is granted when everybody is calm.
func (w *world) reads(ctx context.Context, h *household, i int, drawer *devices.Drawer, v *verdict, refuse func(string, ...any)) {
	reader, err := client.OpenReader(drawer, client.Options{})
	must(w.t, err)
	defer reader.Close()
	var items []client.Item
	for _, f := range h.fields {
		items = append(items, client.Item{Owner: h.owner.ID(), Field: f})
	}
	values, err := reader.Read(ctx, items...)
	if err != nil {
		refuse("%s's reader %d: %v", h.name, i, err)
		return
	}
	for n, got := range values {
		f := h.fields[n]
		granted := h.mayRead[i][f].granted
		switch {
		case got.Err == nil && !granted:
			v.wrong = append(v.wrong, fmt.Sprintf("a revocation was undone: %s's reader %d has %s", h.name, i, f))
		case got.Err == nil && !bytes.Equal(got.Bytes, []byte(h.text(f, h.acked[f]))):
			v.wrong = append(v.wrong, fmt.Sprintf("%s's reader %d has %s as %q, want number %d", h.name, i, f, got.Bytes, h.acked[f]))
		case got.Err != nil && granted:
			if errors.Is(got.Err, client.ErrUntrue) {
				v.closed++
			}
			refuse("%s's reader %d is refused %s: %v", h.name, i, f, got.Err)
		}
	}
}
