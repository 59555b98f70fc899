package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/model/reference"
	"github.com/sallyport/sallyport/tests/stage"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	vaultclient "github.com/sallyport/sallyport/vault/client"
	"github.com/sallyport/sallyport/vault/pre"
)

// World is a running Sallyport with a tap before its storefront, and a stranger at the vault's door with the storefront's certificate.
type World struct {
	stage   *stage.Stage
	tap     *tap
	network client.Network
	vault   *vaultclient.Client
	sealed  bool // the vault offers custody sealed

	keyServer *stage.KeyServer
	keys      string // its address

	operators [2]*client.Reader // who may stop all reading of an owner

	mallory  *client.Reader
	key      *envelope.PrivateKey // mallory's
	played   atomic.Int32         // scripts
	document policies.VaultID
}

// openLimits raises the limits on how often one address may knock: everybody here has the same.
const (
	storefrontLimits = "\n[limits]\nopen_rate = 100000.0\nopen_burst = 100000\nlogin_rate = 100000.0\nlogin_burst = 100000\ndocument_burst = 1000000\n"
	ownersLimits     = "per_second = 100000.0\nburst = 100000\n\n[limits]\nrefusals = 100000.0\nrefusal_burst = 100000\nrefusals_overall = 100000.0\n"
)

// OpenWorld makes a world in a folder, which must not exist.
func OpenWorld(ctx context.Context, bin stage.Binaries, dir string) (w *World, err error) {
	w = new(World)
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
			w = nil
		}
	}()
	if w.tap, err = newTap(); err != nil {
		return w, err
	}
	door, introspection, err := stage.KeyServerDoor(dir)
	if err != nil {
		return w, err
	}
	w.stage, err = stage.Open(ctx, stage.Options{
		Dir: dir, Bin: bin, VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits + door, StorefrontAt: w.tap.url(),
	})
	if err != nil {
		return w, err
	}
	if w.keyServer, err = w.stage.NewKeyServer(ctx, introspection, "per_second = 100000.0\nburst = 100000\ntries = 100000.0"); err != nil {
		return w, err
	}
	if w.keys, err = w.keyServer.URL(); err != nil {
		return w, err
	}
	pem, err := os.ReadFile(w.stage.CA())
	if err != nil {
		return w, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	if err := w.tap.serve(dir, w.stage.StorefrontURL(), &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}); err != nil {
		return w, err
	}
	if w.network, err = client.NewNetwork(w.stage.Join(), client.Options{Roots: pem}); err != nil {
		return w, err
	}
	pair, err := tls.LoadX509KeyPair(w.stage.ClientCertificate())
	if err != nil {
		return w, err
	}
	w.vault, err = vaultclient.New(vaultclient.Config{Address: w.stage.VaultURL(), TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}})
	if err != nil {
		return w, err
	}
	drawer := new(devices.Drawer)
	if w.mallory, err = client.InitReader(ctx, drawer, w.network, policies.KindBusiness, "Mallory", client.Options{}); err != nil {
		return w, err
	}
	if w.key, err = signingKey(drawer); err != nil {
		return w, err
	}
	if err := w.appoint(ctx); err != nil {
		return w, err
	}
	document, err := w.mallory.Vault(ctx)
	if err != nil {
		return w, err
	}
	w.document = document.Vault
	for _, t := range document.Tokens {
		_, w.sealed = document.ImportKey(t.Serial, policies.CustodySealed)
	}
	return w, nil
}

// appoint makes two operators and has the vault know them.
func (w *World) appoint(ctx context.Context) (err error) {
	var ids []string
	for i := range w.operators {
		if w.operators[i], err = client.InitReader(ctx, new(devices.Drawer), w.network, policies.KindBusiness, "Operator", client.Options{}); err != nil {
			return err
		}
		ids = append(ids, strconv.Quote(w.operators[i].ID().String()))
	}
	if err := w.stage.Vault.Stop(); err != nil {
		return err
	}
	config, err := os.OpenFile(filepath.Join(w.stage.Dir(), "vault", "vault.toml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(config, "\n[freeze]\noperators = [%s]\n", strings.Join(ids, ", "))
	if err := errors.Join(err, config.Close()); err != nil {
		return err
	}
	return w.stage.Vault.Start(ctx)
}

// root is the secret of the identity whose state is in a drawer.
func root(drawer *devices.Drawer) (*pre.Root, error) {
	var state struct {
		Root []byte `json:"root"`
	}
	stored, err := drawer.Load()
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(stored, &state); err != nil {
		return nil, err
	}
	return pre.ParseRoot(state.Root)
}

// leaves are what the device whose state is in a drawer has published.
func leaves(drawer *devices.Drawer) ([]policies.Leaf, error) {
	var state struct {
		Leaves [][]byte `json:"leaves"`
	}
	stored, err := drawer.Load()
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(stored, &state); err != nil {
		return nil, err
	}
	out := make([]policies.Leaf, len(state.Leaves))
	for i, raw := range state.Leaves {
		if out[i], err = policies.ParseLeaf(raw); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// signingKey is the key with which that identity signs.
func signingKey(drawer *devices.Drawer) (*envelope.PrivateKey, error) {
	r, err := root(drawer)
	if err != nil {
		return nil, err
	}
	defer r.Zero()
	seed := r.IdentitySeed()
	return envelope.NewPrivateKey(&seed), nil
}

// Close ends everything. The folder stays.
func (w *World) Close() error {
	var errs []error
	for _, r := range append(w.operators[:], w.mallory) {
		if r != nil {
			errs = append(errs, r.Close())
		}
	}
	if w.vault != nil {
		w.vault.Close()
	}
	if w.keyServer != nil {
		errs = append(errs, w.keyServer.Stop())
	}
	if w.stage != nil {
		errs = append(errs, w.stage.Close())
	}
	if w.tap != nil {
		errs = append(errs, w.tap.close())
	}
	return errors.Join(errs...)
}

// forge publishes for an owner at the vault's door, past the client that would refuse: as an author of its own who may not, or is not any more (writer), or with a signature that is
// not the owner's.
func (w *World) forge(ctx context.Context, owner policies.OwnerID, author policies.AuthorID, key *envelope.PrivateKey, attack string) string {
	m := &policies.Manifest{
		Header: policies.NewHeader("manifest", time.Now()), Audience: w.document, Owner: owner, Author: author,
		Version: 1, TreeSize: 0, Root: policies.HashKey(nil),
	}
	m.Link = policies.Link{Seq: 1}
	switch attack {
	case "writer":
		head, err := w.vault.Head(ctx, owner, author)
		if err != nil && !errors.Is(err, policies.CodeNotFound) {
			return code(err)
		}
		if err == nil {
			m.Link, m.Version, m.PrevManifest = policies.Link{Seq: head.Version + 1, Prev: head.Manifest}, head.Version+1, head.Manifest
		}
	case "signature":
		at, err := w.vault.Chain(ctx, owner)
		if err != nil {
			return code(err)
		}
		head, err := w.vault.Head(ctx, owner, policies.AuthorID(owner))
		if err != nil {
			return code(err)
		}
		m.Author, m.Link, m.Version, m.PrevManifest = policies.AuthorID(owner), policies.Link{Seq: at.Seq + 1, Prev: at.Hash}, head.Version+1, head.Manifest
	}
	e, err := policies.Sign(key, m)
	if err != nil {
		return code(err)
	}
	_, err = w.vault.Submit(ctx, vaultapi.Submission{Envelope: e.Raw})
	if err != nil {
		return code(err)
	}
	return string(policies.CodeAccepted)
}

// replay sends something again: a read to the storefront, a document to the vault.
func (w *World) replay(ctx context.Context, attack string, n int) (result string, ok bool) {
	p, ok := w.tap.pick(attack == "read", n)
	if !ok {
		return "", false
	}
	if attack == "read" {
		return w.tap.again(ctx, p), true
	}
	var in struct { // a submission or a publication
		Envelope json.RawMessage `json:"envelope"`
		Manifest json.RawMessage `json:"manifest"`
	}
	if err := json.Unmarshal(p.body, &in); err != nil {
		return err.Error(), true
	}
	if in.Envelope == nil {
		in.Envelope = in.Manifest
	}
	if _, err := w.vault.Submit(ctx, vaultapi.Submission{Envelope: []byte(in.Envelope)}); err != nil {
		return code(err), true
	}
	return string(policies.CodeAccepted), true
}

// code is a result in the words of the model.
func code(err error) string {
	switch {
	case err == nil:
		return reference.OK
	case errors.Is(err, client.ErrFork):
		return "fork"
	case errors.Is(err, client.ErrRollback):
		return "rollback"
	case errors.Is(err, client.ErrUntrue):
		return "untrue"
	case errors.Is(err, client.ErrState):
		return "state"
	case errors.Is(err, client.ErrUntold):
		return reference.Untold
	case errors.Is(err, client.ErrNotStopped):
		return reference.NotStopped
	case errors.Is(err, client.ErrNotRotated):
		return reference.NotRotated
	case errors.Is(err, client.ErrNoField):
		return reference.NoField
	case errors.Is(err, client.ErrReplaced):
		return reference.Replaced
	case errors.Is(err, client.ErrRecovery):
		return reference.NoRecovery
	case errors.Is(err, client.ErrNewer):
		return reference.Newer
	case errors.Is(err, client.ErrThawOld):
		return reference.ThawOld
	case errors.Is(err, client.ErrNotSame):
		return reference.NotSame
	case errors.Is(err, client.ErrOvertaken):
		return reference.Overtaken
	case errors.Is(err, client.ErrNoContact):
		return "no_contact"
	case errors.Is(err, client.ErrNoAccount):
		return "no_account"
	case errors.Is(err, client.ErrKit):
		return reference.HasSheet
	case errors.Is(err, client.ErrEndsSheet):
		return reference.EndsSheet
	case errors.Is(err, client.ErrEndsPassword):
		return reference.EndsWord
	}
	return string(problem.Of(err).Code)
}

// build builds the commands into a folder, with a vault that is in a hurry.
func build(ctx context.Context, dir string) (stage.Binaries, error) {
	root, err := stage.ModuleRoot()
	if err != nil {
		return stage.Binaries{}, err
	}
	bin, err := stage.Build(ctx, root, filepath.Join(dir, "bin"))
	if err != nil {
		return bin, err
	}
	return hurriedVault(ctx, bin, dir)
}
