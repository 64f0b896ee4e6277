// dcmjs-dimse as a peer; run by the tests as a program.
//
// node dcmjs_peer.js echo PORT
// node dcmjs_peer.js store PORT FILE...            prints the status of each file
// node dcmjs_peer.js find PORT KEY=VALUE...        prints each answer, at STUDY level, and the final status
// node dcmjs_peer.js worklist PORT                 prints each answer, and the final status
// node dcmjs_peer.js get PORT STUDY DIRECTORY      prints the counts of the final response
// node dcmjs_peer.js move PORT STUDY TITLE         prints the counts of the final response
// node dcmjs_peer.js serve PORT DIRECTORY          echo, store, find, get and a worklist of one step, until killed
//
// Each line that it prints is one JSON value.

// dcmjs says on the console what it does not know in a data set; nobody reads that here.
for (const each of ['debug', 'error', 'info', 'log', 'trace', 'warn']) {
  console[each] = () => {};
}

const fs = require('fs');
const path = require('path');
const dimse = require('dcmjs-dimse');
const { CEchoRequest, CStoreRequest, CFindRequest, CGetRequest, CMoveRequest } = dimse.requests;
const { CEchoResponse, CStoreResponse, CFindResponse, CGetResponse } = dimse.responses;
const { PresentationContextResult, SopClass, Status, StorageClass, TransferSyntax } = dimse.constants;

const TITLE = 'DCMJS';
const STEP = {
  PatientName: 'Doe^Jane',
  PatientID: 'ID0',
  StudyInstanceUID: '1.2.3.0',
  ScheduledProcedureStepSequence: [
    {
      Modality: 'CT',
      ScheduledStationAETitle: 'CT1',
      ScheduledProcedureStepStartDate: '20260101',
      ScheduledProcedureStepStartTime: '120000',
    },
  ],
};

const print = (value) => process.stdout.write(JSON.stringify(value) + '\n');

function keep(request, directory) {
  // toFile writes what dcmjs has made of the data set, in the transfer syntax in which it came.
  const uid = request.getAffectedSopInstanceUid();
  request.getDataset().toFile(path.join(directory, `${uid}.dcm`));
}

function counts(response) {
  return {
    status: response.getStatus(),
    remaining: response.getRemaining(),
    completed: response.getCompleted(),
    failed: response.getFailures(),
    warning: response.getWarnings(),
  };
}

function ask(port, requests, onStore) {
  const client = new dimse.Client();
  requests.forEach((request) => client.addRequest(request));
  client.on('networkError', (error) => {
    print({ error: String(error) });
    process.exit(1);
  });
  client.on('associationRejected', (reject) => {
    print({ error: 'rejected' });
    process.exit(1);
  });
  client.on('closed', () => process.exit(0));
  if (onStore) {
    client.on('cStoreRequest', onStore);
  }
  client.send('127.0.0.1', port, TITLE, 'NETDICOM');
}

function final(request, show) {
  request.on('response', (response) => {
    if (response.getStatus() !== Status.Pending) {
      show(response);
    }
  });
  return request;
}

function answers(request) {
  request.on('response', (response) => {
    print(
      response.hasDataset()
        ? response.getDataset().getElements()
        : { status: response.getStatus() }
    );
  });
  return request;
}

class Archive extends dimse.Scp {
  static directory = '.';

  associationRequested(association) {
    const syntaxes = Object.values(TransferSyntax);
    const served = [
      SopClass.Verification,
      SopClass.StudyRootQueryRetrieveInformationModelFind,
      SopClass.StudyRootQueryRetrieveInformationModelGet,
      SopClass.ModalityWorklistInformationModelFind,
      ...Object.values(StorageClass),
    ];
    association.getPresentationContexts().forEach(({ id }) => {
      const context = association.getPresentationContext(id);
      const syntax = context.getTransferSyntaxUids().find((each) => syntaxes.includes(each));
      if (!served.includes(context.getAbstractSyntaxUid())) {
        context.setResult(PresentationContextResult.RejectAbstractSyntaxNotSupported);
      } else if (syntax === undefined) {
        context.setResult(PresentationContextResult.RejectTransferSyntaxesNotSupported);
      } else {
        context.setResult(PresentationContextResult.Accept, syntax);
      }
    });
    this.sendAssociationAccept();
  }

  stored() {
    return fs
      .readdirSync(Archive.directory)
      .map((name) => dimse.Dataset.fromFile(path.join(Archive.directory, name)));
  }

  cEchoRequest(request, callback) {
    const response = CEchoResponse.fromRequest(request);
    response.setStatus(Status.Success);
    callback(response);
  }

  cStoreRequest(request, callback) {
    keep(request, Archive.directory);
    const response = CStoreResponse.fromRequest(request);
    response.setStatus(Status.Success);
    callback(response);
  }

  cFindRequest(request, callback) {
    const steps = request.getAffectedSopClassUid() === SopClass.ModalityWorklistInformationModelFind;
    const responses = (steps ? [STEP] : this.studies(request)).map((elements) => {
      const response = CFindResponse.fromRequest(request);
      response.setDataset(new dimse.Dataset(elements));
      response.setStatus(Status.Pending);
      return response;
    });
    const last = CFindResponse.fromRequest(request);
    last.setStatus(Status.Success);
    callback([...responses, last]);
  }

  studies(request) {
    const wanted = request.getDataset().getElements();
    return this.stored()
      .filter((each) => !wanted.PatientID || each.getElement('PatientID') === wanted.PatientID)
      .map((each) => {
        const elements = { QueryRetrieveLevel: 'STUDY' };
        Object.keys(wanted)
          .filter((key) => !key.startsWith('_') && key !== 'QueryRetrieveLevel')
          .forEach((key) => (elements[key] = each.getElement(key) || ''));
        return elements;
      });
  }

  cGetRequest(request, callback) {
    const study = request.getDataset().getElement('StudyInstanceUID');
    const sent = this.stored().filter((each) => each.getElement('StudyInstanceUID') === study);
    this.sendRequests(sent.map((each) => new CStoreRequest(each)));
    const response = CGetResponse.fromRequest(request);
    response.setStatus(Status.Success);
    response.setCompleted(sent.length);
    response.setFailures(0);
    response.setWarnings(0);
    callback([response]);
  }

  associationReleaseRequested() {
    this.sendAssociationReleaseResponse();
  }
}

const [command, portText, ...words] = process.argv.slice(2);
const port = Number(portText);

switch (command) {
  case 'echo':
    ask(port, [final(new CEchoRequest(), (response) => print({ status: response.getStatus() }))]);
    break;
  case 'store':
    ask(
      port,
      words.map((file) => {
        const request = new CStoreRequest(file);
        return final(request, (response) =>
          print({ file: path.basename(file), status: response.getStatus() })
        );
      })
    );
    break;
  case 'find':
    ask(port, [
      answers(
        CFindRequest.createStudyFindRequest(Object.fromEntries(words.map((word) => word.split('='))))
      ),
    ]);
    break;
  case 'worklist':
    ask(port, [answers(CFindRequest.createWorklistFindRequest({ PatientName: '*', PatientID: '' }))]);
    break;
  case 'get':
    ask(port, [final(CGetRequest.createStudyGetRequest(words[0]), (response) => print(counts(response)))],
      (request, callback) => {
        keep(request, words[1]);
        const response = CStoreResponse.fromRequest(request);
        response.setStatus(Status.Success);
        callback(response);
      });
    break;
  case 'move':
    ask(port, [
      final(CMoveRequest.createStudyMoveRequest(words[1], words[0]), (response) => print(counts(response))),
    ]);
    break;
  case 'serve': {
    Archive.directory = words[0];
    const server = new dimse.Server(Archive);
    server.on('networkError', (error) => print({ error: String(error) }));
    server.listen(port);
    break;
  }
  default:
    process.exit(2);
}
