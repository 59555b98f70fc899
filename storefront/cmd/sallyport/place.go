package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// syncedMarks are the files and folders by which a service that copies folders to other computers marks what it copies, and the names that its folder has
// at home. Names alone are a guess; so a person who means it may go on.
var syncedMarks = []struct {
	what  string
	files []string // in the folder or above it
	names []string // of the folder or one above it
}{
	{"Dropbox", []string{".dropbox", ".dropbox.cache"}, []string{"Dropbox"}},
	{"Nextcloud", []string{".nextcloudsync.log", ".sync_*.db"}, []string{"Nextcloud", "ownCloud"}},
	{"Syncthing", []string{".stfolder"}, nil},
	{"OneDrive", []string{".849C9593-D756-4E56-8D6E-42412F2A707B"}, []string{"OneDrive"}},
	{"iCloud", nil, []string{"Mobile Documents", "iCloudDrive"}},
	{"Google Drive", []string{".tmp.drivedownload"}, []string{"Google Drive", "GoogleDrive"}},
	{"Seafile", []string{".seafile-data"}, []string{"Seafile"}},
	{"Git", []string{".git"}, nil},
}

// synced says which service seems to copy a folder, or "".
func synced(dir string) string {
	for _, at := range above(dir) {
		for _, m := range syncedMarks {
			for _, name := range m.names {
				if filepath.Base(at) == name {
					return m.what
				}
			}
			for _, pattern := range m.files {
				if found, err := filepath.Glob(filepath.Join(escapeGlob(at), pattern)); err == nil && len(found) > 0 {
					return m.what
				}
			}
		}
	}
	return ""
}

// above is a folder and all that it is in, by its name and by where links lead.
func above(dir string) (out []string) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil
	}
	up := func(at string) {
		for ; at != filepath.Dir(at); at = filepath.Dir(at) {
			out = append(out, at)
		}
		out = append(out, at)
	}
	up(dir)
	for _, at := range slices.Clone(out) { // the deepest that exists
		if led, err := filepath.EvalSymlinks(at); err == nil {
			if led != at {
				up(led)
			}
			break
		}
	}
	return out
}

// escapeGlob makes a folder's name mean itself in a pattern.
func escapeGlob(name string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(name)
}

// shared reports whether others on this computer can change what is at a path: some folder on the way to it is another user's, or is open for others to write
// and not sticky. Nobody is kept from a folder below by its own mode if they can put another one in its place.
func shared(dir string) (bool, error) {
	for _, at := range above(dir) {
		var st unix.Stat_t
		err := unix.Stat(at, &st)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it will be made, for its user alone
		case err != nil:
			return false, &fs.PathError{Op: "stat", Path: at, Err: err}
		case st.Uid != 0 && int(st.Uid) != os.Geteuid():
			return true, nil
		case st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0:
			return true, nil
		}
	}
	return false, nil
}

// fit refuses a place for a person's profile where others could get at it, and asks about one that seems to be copied elsewhere.
func (s *session) fit(dir string, yes bool) error {
	open, err := shared(dir)
	if err != nil {
		return err
	}
	if open {
		return s.adding(errUnsure, "place.shared", "dir", dir)
	}
	if what := synced(dir); what != "" && !yes {
		return s.adding(errUnsure, "place.synced", "dir", dir, "what", what)
	}
	return nil
}

// fitFile asks about a place for a file with a person's secrets or data, where others could get at it.
func (s *session) fitFile(file string, yes bool) error {
	if file == "" || yes {
		return nil
	}
	open, err := shared(filepath.Dir(file))
	if err != nil {
		return err
	}
	if open {
		return s.sure("place.file.shared", "file", file)
	}
	if what := synced(filepath.Dir(file)); what != "" {
		return s.sure("place.file.synced", "file", file, "what", what)
	}
	return nil
}

// sameDisk reports whether a new file would lie on the disk of a folder, as far as one can tell.
func sameDisk(file, dir string) bool {
	var a, b unix.Stat_t
	return unix.Stat(filepath.Dir(file), &a) == nil && unix.Stat(dir, &b) == nil && a.Dev == b.Dev
}
