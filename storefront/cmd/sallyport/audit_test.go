package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/links"
)

// publishedLog puts a small published log into a script's folder: log, corrupt (with a release that nothing justifies), log's older checkpoint, one of a fork, and $LOGJOIN, the vault's join link.
func publishedLog(e *testscript.Env) error {
	ceremony, token := envelope.NewPrivateKey(&[64]byte{7}), ed25519.NewKeyFromSeed(make([]byte, 32))
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	host, err := evidence.NewCosignerKey("vault.example/host", &[32]byte{1})
	if err != nil {
		return err
	}
	v := &policies.VaultDocument{
		Header: policies.NewHeader("vault", now), Vault: policies.VaultID{7}, Version: 1, CeremonyKey: ceremony.Public().Bytes(),
		Tokens:     []policies.TokenEntry{{Serial: "1", Label: "token", ImportKeys: []policies.ImportKey{{Custody: policies.CustodyResident}}}},
		LogKey:     policies.LogKey{Name: "vault.example/log", Algorithm: "Ed25519", PublicKey: token.Public().(ed25519.PublicKey)},
		LogHostKey: policies.LogKey{Name: host.Cosigner().Name, Algorithm: "ML-DSA-44", PublicKey: host.Cosigner().PublicKey},
		ImportHPKE: make([]byte, policies.KEMPublicKeySize), SessionKEM: append(make([]byte, policies.KEMPublicKeySize-1), 1),
	}
	document, err := policies.Sign(ceremony, v)
	if err != nil {
		return err
	}
	link := links.Join{Vault: v.Vault, Ceremony: policies.HashKey(v.CeremonyKey), Storefront: "https://127.0.0.1:1", Owners: "https://127.0.0.1:2"}
	e.Setenv("LOGJOIN", link.String())

	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = hashes[x]
		}
		return out, nil
	})
	checkpoint := func(size int64, root tlog.Hash) (string, error) {
		key, err := note.NewEd25519VerifierKey(v.LogKey.Name, v.LogKey.PublicKey)
		if err != nil {
			return "", err
		}
		signer, err := note.NewSigner("PRIVATE+KEY+" + v.LogKey.Name + "+" + strings.Split(key, "+")[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, token.Seed()...)))
		if err != nil {
			return "", err
		}
		text, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", v.LogKey.Name, size, base64.StdEncoding.EncodeToString(root[:]))}, signer)
		if err != nil {
			return "", err
		}
		line, err := host.Cosign(v.LogKey.Name, evidence.Checkpoint{Size: uint64(size), Root: policies.Hash(root)}, now)
		return string(text) + line, err
	}

	publish := func(kinds ...evidence.Kind) (files map[string][]byte, checkpoints []string, err error) {
		hashes = nil
		var entries, bodies, tile []byte
		checkpoints = []string{""}
		for i, kind := range kinds {
			d, raw := evidence.Details{Note: "testing"}, []byte(nil)
			if i == 0 {
				d, raw = evidence.Details{Document: document.Hash}, document.Raw
			}
			opening, commitment := evidence.Commit(&d)
			entry := evidence.Entry{Kind: kind, Commitment: commitment}
			if kind == evidence.EntryUse {
				entry.Outcome = policies.CodeReleased
			}
			body := evidence.Body{Opening: opening, Document: raw}
			leaf := append(binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli()+int64(i))), entry.Bytes()...)
			more, err := tlog.StoredHashes(int64(i), leaf, reader)
			if err != nil {
				return nil, nil, err
			}
			hashes = append(hashes, more...)
			entries = append(binary.BigEndian.AppendUint16(entries, uint16(len(leaf))), leaf...)
			bodies = append(binary.BigEndian.AppendUint32(bodies, uint32(len(body.Bytes()))), body.Bytes()...)
			h := tlog.RecordHash(leaf)
			tile = append(tile, h[:]...)
			root, err := tlog.TreeHash(int64(i)+1, reader)
			if err != nil {
				return nil, nil, err
			}
			text, err := checkpoint(int64(i)+1, root)
			if err != nil {
				return nil, nil, err
			}
			checkpoints = append(checkpoints, text)
		}
		width := fmt.Sprintf("000.p/%d", len(kinds))
		return map[string][]byte{
			"checkpoint": []byte(checkpoints[len(kinds)]), "vault": document.Raw, "tile/0/" + width: tile, "tile/entries/" + width: entries, "bodies/" + width: bodies,
		}, checkpoints, nil
	}
	corrupt, _, err := publish(evidence.EntryGenesis, evidence.EntryUse)
	if err != nil {
		return err
	}
	log, checkpoints, err := publish(evidence.EntryGenesis, evidence.EntryStart, evidence.EntryStop)
	if err != nil {
		return err
	}
	fork, err := checkpoint(2, tlog.Hash{1})
	if err != nil {
		return err
	}
	files := map[string][]byte{"older": []byte(checkpoints[2]), "fork": []byte(fork), "vault.json": document.Raw}
	for name, data := range corrupt {
		files["corrupt/"+name] = data
	}
	for name, data := range log {
		files["log/"+name] = data
	}
	for name, data := range files {
		path := filepath.Join(e.WorkDir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	entries := log["tile/entries/000.p/3"]
	entries[len(entries)-1] ^= 1 // what is damaged
	return os.WriteFile(filepath.Join(e.WorkDir, "damaged"), entries, 0o644)
}
