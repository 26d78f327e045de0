// The server of @tus/server as a peer: node tus.mjs FOLDER PORT. An upload has the name of the header X-Name.
import {Server} from '@tus/server'
import {FileStore, FileConfigstore} from '@tus/file-store'
import {mkdirSync} from 'node:fs'

const [directory, port] = process.argv.slice(2)
const notes = `${directory}.notes`
mkdirSync(notes, {recursive: true})
const server = new Server({
  path: '/upload',
  datastore: new FileStore({directory, configstore: new FileConfigstore(notes)}),
  namingFunction: (request) => request.headers.get('x-name'),
})
server.listen({host: '127.0.0.1', port: Number(port)})
