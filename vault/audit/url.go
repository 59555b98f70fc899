package audit

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
)

// URL is a published log behind a web server. A vault's own door gives hash tiles, checkpoint and vault document to anybody, and entries and bodies to nobody
// by this way: then [Log.Consistent] works, and what needs entries says that they are not there.
type URL struct {
	Prefix string // such as https://vault.example/v1/log
	Client *http.Client
}

// Checkpoint implements Source.
func (u *URL) Checkpoint(ctx context.Context) ([]byte, error) {
	return u.get(ctx, checkpointName, maxNote)
}

// Vault is the vault document's envelope that lies there. It is not trusted.
func (u *URL) Vault(ctx context.Context) ([]byte, error) { return u.get(ctx, vaultName, maxNote) }

// Tile implements Source.
func (u *URL) Tile(ctx context.Context, level int, n int64, width int) ([]byte, error) {
	return u.get(ctx, TilePath(level, n, width), maxTile)
}

// Entries implements Source.
func (u *URL) Entries(ctx context.Context, n int64, width int) ([]byte, error) {
	return u.get(ctx, EntriesPath(n, width), maxEntries)
}

// Bodies implements Source.
func (u *URL) Bodies(ctx context.Context, n int64, width int) ([]byte, error) {
	return u.get(ctx, BodiesPath(n, width), maxBodies)
}

func (u *URL) get(ctx context.Context, name string, most int64) ([]byte, error) {
	address := strings.TrimSuffix(u.Prefix, "/") + "/" + name
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := u.Client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return nil, fmt.Errorf("%s: %w", address, fs.ErrNotExist)
	default:
		return nil, fmt.Errorf("%s: the server answers %s", address, response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, most+1))
	if err == nil && int64(len(data)) > most {
		err = tooLong(name, most)
	}
	return data, err
}
