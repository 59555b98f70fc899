// Package devices is the people of the tests: owners' and readers' devices that run in the test's own process, through the SDK, against a stage of
// real daemons. A [Drawer] keeps a device's state where a test can look into it. An [Insider] stands at the vault's door as a storefront that does
// as it likes. [Journal] reads the key-use log's files and shares no code with the vault's own reader, so that what it says is a second opinion.
//
// Functions that take a testing.TB end the test when the stage does not do as they ask, and clean up at its end.
package devices

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// A Drawer is a device's store that lives as long as the test. The test may look into it.
type Drawer struct {
	mu    sync.Mutex
	state []byte
	items map[policies.Hash][]byte
}

func (d *Drawer) Load() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.state), nil
}

func (d *Drawer) Save(state []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = bytes.Clone(state)
	return nil
}

// Copy is a drawer with the same content, for another device that goes on from here.
func (d *Drawer) Copy() *Drawer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Drawer{state: bytes.Clone(d.state), items: maps.Clone(d.items)}
}

func (d *Drawer) PutItem(h policies.Hash, ciphertext []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.items == nil {
		d.items = map[policies.Hash][]byte{}
	}
	d.items[h] = bytes.Clone(ciphertext)
	return nil
}

func (d *Drawer) Item(h policies.Hash) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, ok := d.items[h]; ok {
		return c, nil
	}
	return nil, errors.New("not in the drawer")
}

func (d *Drawer) KeepItems(keep map[policies.Hash]bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for h := range d.items {
		if !keep[h] {
			delete(d.items, h)
		}
	}
	return nil
}

// Contents is what a test reads in a drawer.
type Contents struct {
	Root     []byte `json:"root"`
	Manifest struct {
		Hash policies.Hash `json:"hash"`
	} `json:"manifest"`
	Leaves [][]byte `json:"leaves"`
	Grants []struct {
		Hash  policies.Hash          `json:"hash"`
		Doc   policies.Grant         `json:"doc"`
		Ended []policies.RevokedItem `json:"ended"`
	} `json:"grants"`
}

func (d *Drawer) Look(t testing.TB) *Contents {
	t.Helper()
	state, _ := d.Load()
	c := new(Contents)
	if err := json.Unmarshal(state, c); err != nil {
		t.Fatal(err)
	}
	return c
}

// GrantOf is the newest grant that names a field, in force or not.
func (c *Contents) GrantOf(t testing.TB, f policies.Field) policies.Grant {
	t.Helper()
	for _, g := range slices.Backward(c.Grants) {
		for i := range g.Doc.Fields {
			if g.Doc.Fields[i].Field == f {
				return g.Doc
			}
		}
	}
	t.Fatalf("no grant names %s", f)
	return policies.Grant{}
}

// Offer is what an honest storefront would offer the vault for a field.
func (c *Contents) Offer(t testing.TB, f policies.Field) api.CallItem {
	t.Helper()
	var leaves []policies.Leaf
	for _, raw := range c.Leaves {
		l, err := policies.ParseLeaf(raw)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, l)
	}
	tree, err := policies.NewTree(leaves)
	if err != nil {
		t.Fatal(err)
	}
	leaf, index, ok := tree.Find(f)
	if !ok {
		t.Fatalf("no leaf of %s", f)
	}
	proof, err := tree.Prove(index)
	if err != nil {
		t.Fatal(err)
	}
	point, err := pre.Decompress(&leaf.Capsule)
	if err != nil {
		t.Fatal(err)
	}
	return api.CallItem{Grant: c.GrantOf(t, f).ID, Head: c.Manifest.Hash, Leaf: leaf.Bytes(), Point: point, Proof: proof}
}

// A Person is an owner's device in this process.
type Person struct {
	*client.Owner
	Drawer *Drawer
}

// A Firm is a reader in this process.
type Firm struct {
	*client.Reader
	Drawer *Drawer
}

// Network is how a device finds the stage.
func Network(t testing.TB, s *stage.Stage) client.Network {
	t.Helper()
	pem, err := os.ReadFile(s.CA())
	if err != nil {
		t.Fatal(err)
	}
	n, err := client.NewNetwork(s.Join(), client.Options{Roots: pem})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// NewPerson makes an owner with some fields.
func NewPerson(t testing.TB, s *stage.Stage, o client.Options, values map[policies.Field]string) *Person {
	t.Helper()
	p := &Person{Drawer: new(Drawer)}
	var err error
	if p.Owner, err = client.InitOwner(t.Context(), p.Drawer, Network(t, s), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	var changes []client.Change
	for f, v := range values {
		changes = append(changes, client.Change{Field: f, Value: []byte(v)})
	}
	if err := p.Set(t.Context(), changes...); err != nil {
		t.Fatal(err)
	}
	return p
}

// NewFirm makes a business.
func NewFirm(t testing.TB, s *stage.Stage, name string) *Firm {
	t.Helper()
	f := &Firm{Drawer: new(Drawer)}
	var err error
	if f.Reader, err = client.InitReader(t.Context(), f.Drawer, Network(t, s), policies.KindBusiness, name, client.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// Meet connects the two.
func Meet(t testing.TB, p *Person, f *Firm, alias string) {
	t.Helper()
	code, err := p.Code()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Connect(t.Context(), code, "owner-"+p.ID().String()[:8]); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Connect(t.Context(), f.Code(), alias); err != nil {
		t.Fatal(err)
	}
}

// Value reads one field through the SDK and the storefront.
func (f *Firm) Value(ctx context.Context, owner policies.OwnerID, field policies.Field) (string, error) {
	values, err := f.Read(ctx, client.Item{Owner: owner, Field: field})
	if err != nil {
		return "", err
	}
	return string(values[0].Bytes), values[0].Err
}
