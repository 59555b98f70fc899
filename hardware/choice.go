package hardware

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/hardware/pkcs11uri"
)

// A TokenChoice is what an operator says about the token: which one, by which library, and where its PIN is.
type TokenChoice struct {
	URI    *pkcs11uri.URI // nil: the ceremony's record says it alone
	Module string         // the library; empty: one of the profile's usual places
	PIN    string         // a source for ReadPIN; empty: not said
}

// ChooseToken puts together what a configuration says in a PKCS#11 URI and in members of their own, each of which may be empty.
// Said twice, it must be the same.
//
// Of the URI's path, token, serial, manufacturer and model count. Slots and libraries are named by numbers and texts that change with
// an update or the order of plugging in, and objects are this program's own business: a URI that names one is refused, rather than
// obeyed in part.
func ChooseToken(uri, module, pin string) (TokenChoice, error) {
	c := TokenChoice{Module: module, PIN: pin}
	if uri == "" {
		return c, nil
	}
	u, err := pkcs11uri.Parse(uri)
	if err != nil {
		return TokenChoice{}, fmt.Errorf("%w: %w", ErrTokenChoice, err)
	}
	for _, name := range []string{
		"slot-id", "slot-description", "slot-manufacturer", "library-manufacturer", "library-description", "library-version", "object", "type", "id",
	} {
		if u.Has(name) {
			return TokenChoice{}, fmt.Errorf("%w: %s in a PKCS#11 URI is not for choosing a token here; use serial and token (its label)", ErrTokenChoice, name)
		}
	}
	if u.ModulePath != "" && !filepath.IsAbs(u.ModulePath) {
		return TokenChoice{}, fmt.Errorf("%w: module-path is not absolute", ErrTokenChoice)
	}
	if c.Module, err = same("the library", module, u.ModulePath); err != nil {
		return TokenChoice{}, err
	}
	source, err := pinSource(u.PINSource)
	if err != nil {
		return TokenChoice{}, err
	}
	if c.PIN, err = same("where the PIN is", pin, source); err != nil {
		return TokenChoice{}, err
	}
	c.URI = u
	return c, nil
}

// same is a or b, which must be the same if both are there.
func same(what, a, b string) (string, error) {
	switch {
	case a == "":
		return b, nil
	case b != "" && a != b:
		return "", fmt.Errorf("%w: %s is said twice, in the PKCS#11 URI and beside it, and not the same", ErrTokenChoice, what)
	}
	return a, nil
}

// pinSource turns pin-source of RFC 7512 into a source of ReadSecret: an absolute path, a file URI, or one of our own sources. The
// RFC also has "|program"; what a program says would pass through more hands than a file.
func pinSource(value string) (string, error) {
	scheme, rest, _ := strings.Cut(value, ":")
	switch {
	case value == "":
		return "", nil
	case filepath.IsAbs(value):
		return "file:" + value, nil
	case scheme == "file" && strings.HasPrefix(rest, "//"):
		u, err := url.Parse(value)
		if err != nil || u.Host != "" && u.Host != "localhost" || u.Path == "" || u.RawQuery != "" || u.Fragment != "" {
			return "", fmt.Errorf("%w: pin-source is no file on this machine", ErrTokenChoice)
		}
		return "file:" + u.Path, nil
	case scheme == "file" && filepath.IsAbs(rest), scheme == "credential" && rest != "", scheme == "env" && rest != "":
		return value, nil
	}
	return "", fmt.Errorf("%w: pin-source is /path, file:/path or credential:NAME; it names where the PIN is and is never the PIN, nor a program", ErrTokenChoice)
}

// Choose refuses a URI that names another token than the ceremony's, or another library than module. The record wins: it binds the
// serial number and every key, and a URI can only narrow it. Opening and verifying heed it from then on. A nil URI chooses nothing.
func (r *Record) Choose(u *pkcs11uri.URI) error {
	if u == nil {
		r.chosen = pkcs11uri.URI{}
		return nil
	}
	t := r.Transcript.Token
	for _, a := range []struct{ attribute, name, want, is string }{
		{"serial", "serial", u.Serial, t.Serial}, {"token", "label", u.Token, t.Label}, {"manufacturer", "manufacturer", u.Manufacturer, t.Manufacturer}, {"model", "model", u.Model, t.Model},
	} {
		if u.Has(a.attribute) && a.want != a.is { // an empty one names a token of which this is empty
			return fmt.Errorf("%w: the PKCS#11 URI names a token with %s %q; the ceremony's is %q, serial %s", ErrTokenChoice, a.name, a.want, t.Label, t.Serial)
		}
	}
	r.chosen = *u
	return nil
}

// named refuses a library that is not called as module-name says: RFC 7512 leaves out path, suffix and, mostly, the "lib" before it.
func named(u *pkcs11uri.URI, path string) error {
	if u.ModuleName == "" {
		return nil
	}
	base, _, _ := strings.Cut(filepath.Base(path), ".so")
	if base != u.ModuleName && base != "lib"+u.ModuleName {
		return fmt.Errorf("%w: the PKCS#11 URI wants a library called %q, and there is %s", ErrTokenChoice, u.ModuleName, path)
	}
	return nil
}

// guarded refuses a library that somebody else could change: to load one is to run its code with the PIN in reach. It looks at the file,
// at each folder on the way, and, where the path leads over symbolic links, at the folders that those lie in. A folder that everybody may write to
// will do if it has the sticky bit, because nobody can then replace what belongs to another.
func guarded(path string) error {
	for links := 0; ; links++ {
		if links > 40 {
			return fmt.Errorf("%w: %s: too many symbolic links", ErrModule, path)
		}
		next, err := guardedChain(path)
		if err != nil || next == "" {
			return err
		}
		path = next
	}
}

// guardedChain looks at a path from the root down to the first symbolic link, and returns the path with that link followed.
func guardedChain(path string) (string, error) {
	parts := strings.Split(strings.TrimPrefix(filepath.Clean(path), "/"), "/")
	at := "/"
	for i := -1; i < len(parts); i++ {
		if i >= 0 {
			at = filepath.Join(at, parts[i])
		}
		info, err := os.Lstat(at)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrModule, err)
		}
		if info.Mode()&os.ModeSymlink != 0 {
			target, err := os.Readlink(at)
			if err != nil {
				return "", fmt.Errorf("%w: %w", ErrModule, err)
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(at), target)
			}
			return filepath.Join(append([]string{target}, parts[i+1:]...)...), nil
		}
		if err := ours(at, info); err != nil {
			return "", err
		}
	}
	return "", nil
}

// ours tells whether only root and this user can change a file or folder.
func ours(path string, info os.FileInfo) error {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrModule, path, err)
	}
	mode := info.Mode()
	sticky := mode.IsDir() && mode&os.ModeSticky != 0
	switch {
	case stat.Uid != 0 && stat.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("%w: %s belongs to another user, who could change what the library does", ErrModule, path)
	case mode.Perm()&0o002 != 0 && !sticky:
		return fmt.Errorf("%w: %s can be written by everybody, who could change what the library does: chmod o-w it", ErrModule, path)
	case mode.Perm()&0o020 != 0 && stat.Gid != 0 && !sticky:
		return fmt.Errorf("%w: %s can be written by its group, who could change what the library does: chmod g-w it", ErrModule, path)
	}
	return nil
}
